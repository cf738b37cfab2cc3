package conntrack

import "time"

// The two sources of a mirror, events and the rows of a dump, come over two
// sockets, and neither tells when the kernel looked at the entry. What keeps
// them apart is that events are in order and complete: whatever was told of an
// entry by an event since the dump began stands, because anything newer that
// the dump's row shows has an event of its own still to come. A row fills in
// only what no event told, and makes no entry again that has ended since.

// event applies an event.
func (m *Mirror) event(e *Event) {
	f := &e.Flow
	key := keyOf(&f.Original, f.originalZone())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.Events++
	if key.family == 0 {
		return // names no entry
	}
	r := m.table.find(&key)
	if e.Type == EventDestroy {
		m.destroyed(&key, r, f)
		return
	}
	if !f.Has(FieldMark) {
		f.Mark, f.Fields = 0, f.Fields|FieldMark // left out when 0: ctnetlink_dump_mark
	}
	r = m.replace(r, &key, f)
	if r.generation != m.generation {
		r.generation, r.told = m.generation, 0
	}
	r.told |= f.Fields
	if !r.announced {
		r.announced = true
		m.stats.Unannounced--
	}
	m.update(r, f, f.Fields)
}

// destroyed ends an entry. A row of another ID is that of a later one.
func (m *Mirror) destroyed(key *flowKey, r *mirrorRow, f *Flow) {
	if m.gone != nil {
		m.gone[*key] = struct{}{}
	}
	if r != nil && r.id == f.ID {
		m.remove(r)
	}
}

// merge takes a row of a dump.
func (m *Mirror) merge(f *Flow) {
	key := keyOf(&f.Original, f.originalZone())
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.table.find(&key)
	if r != nil && r.generation == m.generation && r.told != 0 {
		if r.id == f.ID {
			m.update(r, f, ^r.told)
		}
		return
	}
	if _, ended := m.gone[key]; ended || key.family == 0 {
		return
	}
	if r == nil && m.stats.Dumps > 0 {
		m.stats.Appeared++
	}
	r = m.replace(r, &key, f)
	m.forget(r)
	r.generation = m.generation
	m.update(r, f, ^Fields(0))
}

// replace returns the entry's row: r unless it is that of an earlier entry.
func (m *Mirror) replace(r *mirrorRow, key *flowKey, f *Flow) *mirrorRow {
	if r != nil && r.id == f.ID {
		return r
	}
	if r != nil {
		m.remove(r)
	}
	r = m.table.add(key)
	r.id = f.ID
	m.counts.add(key, 1)
	m.stats.Unannounced++
	return r
}

// update takes what f has of the fields.
func (m *Mirror) update(r *mirrorRow, f *Flow, fields Fields) {
	m.counts.state(r, -1)
	r.merge(f, fields, time.Since(m.born))
	m.counts.state(r, 1)
}

// forget empties a row that is to be written anew.
func (m *Mirror) forget(r *mirrorRow) {
	m.counts.state(r, -1)
	*r = mirrorRow{flowKey: r.flowKey, hash: r.hash, id: r.id, reply: r.reply, announced: r.announced}
}

func (m *Mirror) remove(r *mirrorRow) {
	m.counts.state(r, -1)
	m.counts.add(&r.flowKey, -1)
	if !r.announced {
		m.stats.Unannounced--
	}
	m.table.remove(r)
}

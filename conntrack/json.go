package conntrack

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MarshalJSON writes f so that UnmarshalJSON reads the same Flow back:
//
//	{
//	  "original": {"src": "192.0.2.1", "dst": "192.0.2.2", "proto": "tcp", "sport": 40000, "dport": 443},
//	  "reply": {"src": "192.0.2.2", "dst": "192.0.2.1", "proto": "tcp", "sport": 443, "dport": 40000},
//	  "status": ["SEEN_REPLY", "ASSURED", "CONFIRMED"],
//	  "timeout": 431999,
//	  "tcp": {"state": "ESTABLISHED", "original_flags": 35, "reply_flags": 35, "original_scale": 10, "reply_scale": 10},
//	  "mark": 0, "zone": 7, "id": 544573214, "use": 1,
//	  "counters": {"original": {"packets": 2, "bytes": 112}, "reply": {"packets": 1, "bytes": 60}},
//	  "start": "2026-11-21T09:11:51.123456789Z",
//	  "labels": [3, 17], "helper": "ftp", "secctx": "system_u:object_r:client_packet_t:s0",
//	  "master": {…}, "seqadj": {…}, "synproxy": {…}, "sctp": {…}, "dccp": {…}
//	}
//
// What Has denies is left out. A protocol without a tracker is its number in
// quotes. Tuples of ICMP have "type", "code" and "id", and one that is alone in
// a zone has a "zone". The timeout is in seconds, instants are RFC 3339 in UTC
// to the nanosecond, counters are whole numbers of up to 64 bits.
func (f Flow) MarshalJSON() ([]byte, error) {
	j, err := newFlowJSON(&f)
	if err != nil {
		return nil, jsonError(err)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. Keys it does not know are
// skipped. A value of another type or out of range is an error that names the
// key, and leaves f as it was; so does a missing tuple.
func (f *Flow) UnmarshalJSON(b []byte) error {
	var j *flowJSON
	err := json.Unmarshal(b, &j)
	if err == nil && j != nil {
		err = j.into(f, "")
	}
	return jsonError(err)
}

// MarshalJSON writes e as {"type": "NEW", "at": …, "port": …, "flow": {…}}, the
// flow as Flow.MarshalJSON. "at" and "port" are left out when they are 0.
func (e Event) MarshalJSON() ([]byte, error) {
	flow, err := newFlowJSON(&e.Flow)
	if err != nil {
		return nil, jsonError(err)
	}
	return json.Marshal(eventJSON{e.Type.String(), jsonWhen(e.At != 0, jsonInstant(e.At)), e.Port, flow})
}

// UnmarshalJSON reads what MarshalJSON writes, as Flow.UnmarshalJSON does.
func (e *Event) UnmarshalJSON(b []byte) error {
	var j *eventJSON
	err := json.Unmarshal(b, &j)
	if err == nil && j != nil {
		err = j.into(e)
	}
	return jsonError(err)
}

func (j *eventJSON) into(to *Event) error {
	var r jsonReader
	e := Event{Type: r.eventType(j.Type), Port: j.Port}
	if j.At != nil {
		e.At = r.instant("at", *j.At)
	}
	switch {
	case j.Flow == nil:
		r.fail("flow", "is missing")
	case r.err == nil:
		r.err = j.Flow.into(&e.Flow, "flow.")
	}
	if r.err == nil {
		*to = e
	}
	return r.err
}

func jsonError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("conntrack: JSON: %w", jsonPlain(err))
}

// jsonPlain says a wrong type in the words of JSON, and where it is.
func jsonPlain(err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		key := strings.TrimPrefix(wrong.Field, "flowJSON.") // as recordLine embeds it
		return fmt.Errorf("%s: %s is no %s", key, wrong.Value, wrong.Type)
	}
	return err
}

// jsonReader keeps the first fault of what JSON has as text.
type jsonReader struct{ err error }

func (r *jsonReader) fail(key, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", key, what)
	}
}

// addr reads an address; an empty one is the zero Addr.
func (r *jsonReader) addr(key, s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		r.fail(key, strconv.Quote(s)+" is no IP address")
	}
	return a
}

func (r *jsonReader) proto(key, s string) Proto {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return Proto(n)
	}
	for n := range 256 {
		if s == Proto(n).name() && s != "unknown" {
			return Proto(n)
		}
	}
	r.fail(key, strconv.Quote(s)+" is no protocol")
	return 0
}

func jsonState[T any](r *jsonReader, key, s string, parse func(string) (T, bool)) T {
	state, ok := parse(s)
	if !ok {
		r.fail(key, strconv.Quote(s)+" is no state")
	}
	return state
}

// jsonInstant writes RFC 3339 in UTC: all of a Timestamp's range has years of
// four digits.
func jsonInstant(t Timestamp) string {
	return time.Unix(0, int64(t)).UTC().Format(time.RFC3339Nano)
}

func (r *jsonReader) instant(key, s string) Timestamp {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !t.Equal(time.Unix(0, t.UnixNano())) {
		r.fail(key, strconv.Quote(s)+" is no RFC 3339 time of the years 1678 to 2261")
		return 0
	}
	return Timestamp(t.UnixNano())
}

func (r *jsonReader) eventType(s string) EventType {
	for t := EventNew; t <= EventDestroy; t++ {
		if s == t.String() {
			return t
		}
	}
	r.fail("type", strconv.Quote(s)+" is no event")
	return 0
}

func jsonStatus(s Status) []string {
	if s == 0 {
		return []string{}
	}
	return strings.Split(s.String(), "|")
}

// status reads words, and bits without a word as "0x10000".
func (r *jsonReader) status(key string, words []string) (s Status) {
	for _, word := range words {
		if i := slices.Index(statusNames[:], word); i >= 0 {
			s |= 1 << i
			continue
		}
		n, err := strconv.ParseUint(word, 0, 32)
		if err != nil {
			r.fail(key, strconv.Quote(word)+" is no status bit")
		}
		s |= Status(n)
	}
	return s
}

// jsonSeconds are those that CTA_TIMEOUT can tell.
func jsonSeconds(d time.Duration) (uint32, error) {
	if d < 0 || d/time.Second > math.MaxUint32 {
		return 0, fmt.Errorf("timeout %v: want 0 to %v", d, math.MaxUint32*time.Second)
	}
	return uint32(d / time.Second), nil
}

func jsonWhen[T any](ok bool, v T) *T {
	if !ok {
		return nil
	}
	return &v
}

func jsonValue[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

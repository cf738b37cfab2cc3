package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// zone loads the conntrack zone and gives it to the packet.
func (e exprs) zone(id uint16) {
	e.load(reg1, binary.NativeEndian.AppendUint16(nil, id))
	e.add("ct", func() {
		e.U32(2, ctZone) // NFTA_CT_KEY
		e.U32(4, reg1)   // NFTA_CT_SREG
	})
}

// checkZone knows that a connection is looked up in the zone its packet has by
// then.
func (r Rule) checkZone(_ Table, c Chain) error {
	switch {
	case r.Zone == 0:
	case c.Hook != Prerouting && c.Hook != Output:
		return fmt.Errorf("a conntrack zone cannot be set at hook %v", c.Hook)
	case c.Priority >= PriorityConntrack:
		return fmt.Errorf("a conntrack zone at priority %d is too late: conntrack has %d", c.Priority, PriorityConntrack)
	case r.Verdict == NoTrack:
		return errors.New("a conntrack zone for packets that are not tracked")
	}
	return nil
}

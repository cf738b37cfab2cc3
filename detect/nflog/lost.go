package nflog

import (
	"errors"
	"fmt"
)

// ErrLost is what every *Lost answers to errors.Is.
var ErrLost = errors.New("packets were lost")

// Lost reports packets that were logged and did not arrive. It is no end:
// ranging goes on after it. The sum of all Counts is the number lost.
type Lost struct {
	// Group is the NFLOG group whose packets Count counts. An overrun is of
	// all groups of the Reader, and has none.
	Group uint16

	// Count is how many packets are missing in the sequence before the next
	// packet of the group. 0 is not known: an overrun that has just been noticed, whose
	// loss each group's next packet will count, or a sequence that started again.
	Count uint64

	// Overrun tells that the socket's receive buffer was full (ENOBUFS): read
	// faster, or raise Config.ReadBuffer or Config.Threshold, or lower
	// Config.Snaplen.
	Overrun bool
}

func (e *Lost) Error() string {
	switch {
	case e.Overrun:
		return "nflog: receive buffer overrun: packets were lost"
	case e.Count == 0:
		return fmt.Sprintf("nflog: group %d: the sequence started again: packets may have been lost", e.Group)
	case e.Count == 1:
		return fmt.Sprintf("nflog: group %d: 1 packet was lost", e.Group)
	}
	return fmt.Sprintf("nflog: group %d: %d packets were lost", e.Group, e.Count)
}

func (e *Lost) Unwrap() error { return ErrLost }

// sequence follows the numbers of a group (NFULA_SEQ). The kernel starts a
// group at 0 and numbers under a lock, in the order of delivery, so the zero
// sequence also sees what was lost before the first packet.
type sequence struct {
	group uint16
	next  uint32
}

// advance takes the next packet's number and returns what it reveals, or nil.
// A gap of 2³¹ or more is taken for a step back.
func (s *sequence) advance(seq uint32) *Lost {
	gap := seq - s.next
	switch {
	case gap == 0:
		s.next++
		return nil
	case gap == 1<<32-1: // the last one again
		return nil
	}
	s.next = seq + 1
	if gap >= 1<<31 {
		return &Lost{Group: s.group}
	}
	return &Lost{Group: s.group, Count: uint64(gap)}
}

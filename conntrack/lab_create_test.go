package conntrack

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

// TestCreateDetails makes entries with details, and entries of what the kernel
// shows of those.
func TestCreateDetails(t *testing.T) {
	c, _ := emptyTable(t)
	seq := Details{OriginalSeq: SeqAdj{Position: 1 << 31, Before: -2, After: 3}, ReplySeq: SeqAdj{Position: 4, Before: 5, After: -6}}
	sctp, dccp := entry(tuple(ProtoSCTP, "10.0.0.1:1", "10.0.0.2:2")), entry(tuple(ProtoDCCP, "[fd00::1]:1", "[fd00::2]:2"))
	for _, tt := range []struct {
		name     string
		flow     Flow
		details  Details
		status   Status
		optional Fields // that not all kernels have
	}{
		{"sequence adjustment", entry(tupleTCP), seq, SeqAdjust, 0},
		{"synproxy", entry(tupleTCP), Details{Synproxy: Synproxy{ISN: 1 << 31, ITS: 2, TimestampOffset: 3}}, 0, FieldSynproxy},
		{"SCTP tracker", sctp, Details{SCTP: SCTPInfo{State: 4, OriginalTag: 1 << 31, ReplyTag: 2}}, 0, FieldSCTP},
		{"DCCP tracker", dccp, Details{DCCP: DCCPInfo{State: DCCPOpen, Role: 1, HandshakeSeq: 1 << 40}}, 0, FieldDCCP},
	} {
		f := tt.flow.WithDetails(tt.details)
		made := create(t, c, f)[0]
		if tt.optional != 0 {
			t.Logf("SUPPORT: %s: %s", tt.name, yesNo(made.Has(tt.optional)))
		}
		if made.Details() != tt.details && (tt.optional == 0 || made.Has(tt.optional)) || made.Status != Confirmed|tt.status {
			t.Errorf("%s: %+v, %v; want %+v", tt.name, made.Details(), made.Status, tt.details)
		}
		must(t, c.Delete(within(t), made))
		again := create(t, c, made)[0]
		if again.ID = made.ID; static(again) != static(made) {
			t.Errorf("%s again: %+v %+v", tt.name, plain(again), again.Details())
		}
		must(t, c.Flush(within(t)))
	}
}

// TestCreateStatus makes an entry with every status bit: those that are the
// kernel's to set are left to it.
func TestCreateStatus(t *testing.T) {
	c, _ := emptyTable(t)
	f := entry(tupleTCP)
	f.Status = ^(natted | Helper)
	if made := create(t, c, f)[0]; made.Status != Confirmed|SeenReply|Assured|FixedTimeout {
		t.Errorf("got %v", made.Status)
	}
}

// TestCreateLabels makes entries with labels, where there is room for them and
// where there is none: nothing is left there.
func TestCreateLabels(t *testing.T) {
	f := entry(tupleTCP).WithDetails(Details{Labels: LabelSet(0, 31, 64, 127)})
	c, h := emptyTable(t)
	if err := c.Create(within(t), f); !errors.Is(err, syscall.ENOSPC) || !isOp(err, "create") {
		t.Errorf("no room: %v", err)
	}
	holds(t, c, nil)
	withLabels(t, h)
	if made := create(t, c, f)[0]; made.Details().Labels != f.Details().Labels {
		t.Errorf("got %v", made.Details().Labels)
	}
}

// TestCreateHelper makes entries with helpers.
func TestCreateHelper(t *testing.T) {
	c, _ := emptyTable(t)
	made := withHelper(t, c)
	if made.Details().Helper != "ftp" || made.Status&Helper == 0 {
		t.Errorf("got %+v, %v", made.Details(), made.Status)
	}
	for name, f := range map[string]Flow{
		"unknown":             entry(tupleUDP6).WithDetails(Details{Helper: "nonesuch"}),
		"of another protocol": entry(tupleUDP6).WithDetails(Details{Helper: "ftp"}),
	} {
		if err := c.Create(within(t), f); !errors.Is(err, errors.ErrUnsupported) || !isOp(err, "create") {
			t.Errorf("%s: %v", name, err)
		}
	}
	holds(t, c, []Flow{made})
}

// TestCreateWithMaster makes the connection that another one's helper would have
// expected.
func TestCreateWithMaster(t *testing.T) {
	c, _ := emptyTable(t)
	f := entry(tupleTCP).WithDetails(Details{Master: tuple(ProtoTCP, "10.0.0.1:40000", "10.0.0.2:21")})
	if err := c.Create(within(t), f); !errors.Is(err, fs.ErrNotExist) || !isOp(err, "create") {
		t.Errorf("no master: %v", err)
	}
	create(t, c, entry(f.Details().Master))
	made := create(t, c, f)[0]
	if made.Details() != f.Details() || made.Status != Confirmed|Expected {
		t.Errorf("got %+v, %v", made.Details(), made.Status)
	}
	if err := c.Update(within(t), made, Change{RemoveHelper: true}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("helper of an expected connection: %v", err)
	}
	must(t, c.Delete(within(t), made))
	again := create(t, c, made)[0]
	if again.ID = made.ID; static(again) != static(made) {
		t.Errorf("again: %+v", plain(again))
	}
}

package detect

import (
	"github.com/connsleuth/connsleuth/conntrack"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// The methods of a row that tell what it has take the row by value, and copy
// hundreds of bytes. These only look, for what is asked of each of a million.

// shows is Flow.Has.
func shows(f *conntrack.Flow, fields conntrack.Fields) bool { return f.Fields&fields == fields }

// unreplied is Flow.Unreplied.
func unreplied(f *conntrack.Flow) bool {
	return shows(f, conntrack.FieldStatus) && f.Status&conntrack.SeenReply == 0
}

// assured is Flow.Assured.
func assured(f *conntrack.Flow) bool { return f.Status&conntrack.Assured != 0 }

// offloaded is Flow.Offloaded.
func offloaded(f *conntrack.Flow) bool {
	return f.Status&(conntrack.Offload|conntrack.HWOffload) != 0
}

// tells is Socket.Has.
func tells(s *sockdiag.Socket, fields sockdiag.Fields) bool { return s.Fields&fields == fields }

// owned is Socket.HasOwner.
func owned(s *sockdiag.Socket) bool { return s.Inode != 0 }

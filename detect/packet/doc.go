// Package packet reads the headers of one captured packet, and of the packet
// that an ICMP error quotes.
//
// The bytes start at the IP header, as NFLOG (nfnetlink_log, NFULA_PAYLOAD)
// and cooked AF_PACKET sockets deliver them. They may be cut anywhere: by a
// capture length, by a router that quotes only the IP header and 8 bytes
// (RFC 792), or by malice. [Decode] therefore separates what the headers
// claim (Length, DataLen) from what is there (PayloadLen), and marks each
// field that could be absent with a bit in [Have]: absent is not zero.
//
// A fact that is present does not depend on how much was captured: decoding
// more bytes of the same packet adds facts and never changes one.
//
// # Signatures
//
// [TCPFlags.Anomaly] and [Header.Anomaly] name flags that no TCP in good health
// sends, [Header.Arrived] and [Header.Hops] tell what a late RST proves, and
// [DecodeHeartbeat] with [Heartbeat.Fault] a Heartbleed attack. Two trackers,
// bounded in memory, follow connections: [ResetTracker] finds data sent with
// PSH|RST that a rule dropped, and [HeartbeatTracker] heartbeats wherever their
// records begin, and responses that are longer than their requests. What was
// cut off by a capture length is not guessed: it lowers the [Confidence].
//
// # Limits
//
// Checksums are not verified. Fragments are not reassembled, tunnels not
// entered, and of a quoted packet that is itself an ICMP error only the
// headers are read.
//
// Decode allocates nothing, on success or on error, and keeps no reference to
// its argument; nor do the signatures. All but the trackers are comparable
// values and safe for concurrent use.
package packet

package packet

import "encoding/binary"

// Sizes of TLS and of its heartbeat extension.
const (
	tlsHeaderLen     = 5  // type, version, length: RFC 5246 section 6.2.1
	heartbeatLen     = 3  // type and payload_length: RFC 6520 section 4
	heartbeatPadding = 16 // the least: RFC 6520 section 4
	heartbeatMax     = 1 << 14
	tlsMax           = heartbeatMax + 2048 // of a ciphertext: RFC 5246 section 6.2.3
	usualHeartbeat   = 64                  // S10's filter: more than 64 + 5 bytes is not usual

	// leastCiphertext is the shortest record that can hold an encrypted
	// heartbeat: 3 bytes and 16 of MAC, or of nonce and tag (CCM_8). What is
	// shorter is in the clear.
	leastCiphertext = heartbeatLen + 16
)

// TLS record types (IANA, "TLS ContentType").
const (
	tlsChangeCipherSpec = 20
	tlsHandshake        = 22
	tlsApplicationData  = 23
	tlsHeartbeat        = 24
)

// Types of heartbeat messages, RFC 6520 section 3.
const (
	HeartbeatRequest  uint8 = 1
	HeartbeatResponse uint8 = 2
)

// Heartbeat is a TLS record of type heartbeat (24), as far as its header and
// the 3 bytes after it tell. It is comparable.
type Heartbeat struct {
	// Version is that of the record: 0x0300 (SSL 3.0) to 0x0304.
	Version uint16
	// Length is that of the message in bytes, as the record claims.
	Length int
	// Type is HeartbeatRequest or HeartbeatResponse; anything else is cipher
	// text, or was not captured (0).
	Type uint8
	// Payload is the payload_length that the message claims; -1 when it was not
	// captured, or the record is too short for it. Of cipher text it means
	// nothing.
	Payload int
}

// HeartbeatFault is what is wrong with a heartbeat.
type HeartbeatFault uint8

// The faults. Zero is none that shows.
const (
	// Overread is a request that claims more payload than its record holds: the
	// Heartbleed attack, CVE-2014-0160.
	Overread HeartbeatFault = iota + 1
	// Leak is a response with more payload than its request can have held: an
	// answer to that attack.
	Leak
	// Violation is a message that RFC 6520 section 4 forbids: less than 16
	// bytes of padding, more than 16384 bytes, of a type that is none, or a
	// response that claims more payload than its record holds.
	Violation
	// Large is a response, or cipher text, of more than 64 bytes.
	Large
)

var faultNames = [...]string{"none", "overread", "leak", "violation", "large"}

// String names the fault in lower case.
func (f HeartbeatFault) String() string { return nameOf(f, faultNames[:]) }

// DecodeHeartbeat reads the heartbeat record at the start of b, of which 8
// bytes are enough. ok is false if there is none.
func DecodeHeartbeat(b []byte) (hb Heartbeat, ok bool) {
	if !isTLSRecord(b) || b[0] != tlsHeartbeat {
		return Heartbeat{}, false
	}
	hb = Heartbeat{Version: binary.BigEndian.Uint16(b[1:]), Length: tlsLength(b), Payload: -1}
	body := b[tlsHeaderLen:min(len(b), tlsHeaderLen+hb.Length)]
	if len(body) > 0 {
		hb.Type = body[0]
	}
	if len(body) >= heartbeatLen {
		hb.Payload = int(binary.BigEndian.Uint16(body[1:]))
	}
	return hb, true
}

// isTLSRecord reports whether a TLS record header can stand at the start of b:
// a known type, version 3.0 to 3.4, a length that a record may have.
func isTLSRecord(b []byte) bool {
	return len(b) >= tlsHeaderLen && b[0] >= tlsChangeCipherSpec && b[0] <= tlsHeartbeat &&
		b[1] == 3 && b[2] <= 4 && tlsLength(b) <= tlsMax
}

func tlsLength(b []byte) int { return int(binary.BigEndian.Uint16(b[3:])) }

// Fault returns what is wrong with the heartbeat, and how sure that is, as far
// as it tells alone: Overread, Violation or Large. A [HeartbeatTracker] knows
// more.
//
// In the clear a fault is Certain. Cipher text looks like anything: one message
// in 128 looks like a request or response, and then nearly always like a
// faulty one, which therefore is Likely. A record too short for cipher text is
// in the clear.
func (hb Heartbeat) Fault() (HeartbeatFault, Confidence) { return hb.fault(cipherUnknown) }

// cipher is what is known of how records are protected.
type cipher uint8

const (
	cipherUnknown cipher = iota
	cipherNone
	cipherText
)

func (hb Heartbeat) fault(c cipher) (HeartbeatFault, Confidence) {
	cut := hb.Type == 0 && hb.Length > 0 || hb.Payload < 0 && hb.Length >= heartbeatLen
	switch {
	case hb.hidden(c) || cut:
		return hb.large()
	case hb.Type != HeartbeatRequest && hb.Type != HeartbeatResponse:
		return Violation, Certain
	case hb.Type == HeartbeatRequest && hb.over() > 0:
		return Overread, hb.sure(c)
	case hb.over() > -heartbeatPadding || hb.Length > heartbeatMax:
		return Violation, hb.sure(c)
	case hb.Type == HeartbeatResponse:
		return hb.large()
	}
	return 0, Unknown
}

// over returns how many bytes more the message claims than its record holds.
func (hb Heartbeat) over() int {
	if hb.Payload < 0 {
		return 0
	}
	return hb.Payload + heartbeatLen - hb.Length
}

// sure is how sure it is that what can be read is no cipher text.
func (hb Heartbeat) sure(c cipher) Confidence {
	if c == cipherNone || hb.Length < leastCiphertext {
		return Certain
	}
	return Likely
}

// hidden reports whether the message is cipher text, as far as can be told.
func (hb Heartbeat) hidden(c cipher) bool {
	known := hb.Type == HeartbeatRequest || hb.Type == HeartbeatResponse
	return hb.Length >= leastCiphertext && (c == cipherText || c == cipherUnknown && !known)
}

func (hb Heartbeat) large() (HeartbeatFault, Confidence) {
	if hb.Length > usualHeartbeat {
		return Large, Possible
	}
	return 0, Unknown
}

// LargeHeartbeat reports whether a TCP segment of more than 69 bytes of data
// begins with a heartbeat record, in the clear or encrypted: what capture
// filters for Heartbleed look for, on any port:
//
//	payload[0] = 0x18 and payload[1] = 0x03 and payload[2] < 0x04 and
//	ip_len - 4*ihl - 4*data_offset > 69
//
// b are the bytes that h was decoded from. It sees no record that begins inside
// a segment, no small one, and cannot tell a request from a response: see
// [HeartbeatTracker].
func (h Header) LargeHeartbeat(b []byte) bool {
	data := h.Payload(b)
	return h.Proto == ProtoTCP && max(h.DataLen, len(data)) > tlsHeaderLen+usualHeartbeat &&
		len(data) >= 3 && data[0] == tlsHeartbeat && data[1] == 3 && data[2] < 4
}

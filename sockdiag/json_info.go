package sockdiag

import (
	"encoding/json"
	"strconv"
	"time"
)

// MarshalJSON writes the parts that the kernel gave, under the kernel's names
// without tcpi_: {"state": "ESTABLISHED", "ca_state": "open", …, "rto_us":
// 204000, …, "bytes_acked": 5001, …}. Times have their unit in the name,
// options are words (timestamps, sack, wscale, ecn, ecn_seen, syn_data), and
// what else is counted are whole numbers of up to 64 bits.
func (t TCPInfo) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 1200)
	sep := byte('{')
	for i := range infoKeys {
		if k := &infoKeys[i]; t.Has(k.part) {
			b = strconv.AppendQuote(append(b, sep), k.json)
			b = k.appendJSON(append(b, ':'), &t)
			sep = ','
		}
	}
	if sep == '{' {
		b = append(b, sep)
	}
	return append(b, '}'), nil
}

func (k *infoKey) appendJSON(b []byte, t *TCPInfo) []byte {
	switch v := k.ptr(t).(type) {
	case *State:
		return strconv.AppendQuote(b, v.String())
	case *CAState:
		return strconv.AppendQuote(b, v.String())
	case *bool:
		return strconv.AppendBool(b, *v)
	case *uint8:
		if v == &t.Options {
			words, _ := json.Marshal(jsonBits(uint64(*v), infoOptionsNames)) // of words alone
			return append(b, words...)
		}
		return appendUint(b, uint64(*v))
	case *uint16:
		return appendUint(b, uint64(*v))
	case *uint32:
		return appendUint(b, uint64(*v))
	case *uint64:
		return appendUint(b, *v)
	case *time.Duration:
		return appendUint(b, uint64(max(0, *v/k.unit)))
	}
	return append(b, "null"...)
}

// UnmarshalJSON reads what MarshalJSON writes. A part is there as a whole or
// not at all; of keys it does not know it takes no notice. An error leaves t as
// it was.
func (t *TCPInfo) UnmarshalJSON(b []byte) error {
	var values map[string]json.RawMessage
	err := json.Unmarshal(b, &values)
	if err != nil || values == nil {
		return jsonError(err)
	}
	var r jsonReader
	var info TCPInfo
	missing := make(map[InfoFields]string)
	for i := range infoKeys {
		k := &infoKeys[i]
		v, ok := values[k.json]
		if !ok || string(v) == "null" {
			missing[k.part] = k.json
			continue
		}
		info.Fields |= k.part
		k.readJSON(&r, &info, v)
	}
	for part, key := range missing {
		if info.Has(part) {
			r.fail("info."+key, "is missing")
		}
	}
	if r.err == nil {
		*t = info
	}
	return jsonError(r.err)
}

func (k *infoKey) readJSON(r *jsonReader, t *TCPInfo, b json.RawMessage) {
	key := "info." + k.json
	var err error
	switch v := k.ptr(t).(type) {
	case *State:
		var word string
		err = json.Unmarshal(b, &word)
		*v = r.state(key, word)
	case *CAState:
		var word string
		err = json.Unmarshal(b, &word)
		*v = jsonWord(r, key, word, "CAState", CALoss)
	case *uint8:
		if v != &t.Options {
			err = json.Unmarshal(b, v)
			break
		}
		var words []string
		err = json.Unmarshal(b, &words)
		*v = uint8(r.bits(key, words, infoOptionsNames, 8))
	case *time.Duration:
		var n uint64
		err = json.Unmarshal(b, &n)
		*v = r.duration(key, n, k.unit)
	default:
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		r.fail(key, string(b)+" is of another type, or out of range")
	}
}

package sockdiag

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// ssOptions are the words of ss -io for TCPInfo.Options.
var ssOptions = map[string]uint8{
	"ts": OptTimestamps, "sack": OptSACK, "ecn": OptECN, "ecnseen": OptECNSeen, "fastopen": OptSynData,
}

// ssWord reads a word that is no key with a value: an option, a rate and its
// value, a congestion control, a ULP, or <-> and its like.
func (p *lineParser) ssWord(t lineWord) {
	s := &p.line.Socket
	switch t.text {
	case "<->", "-->", "<--", "---":
		s.Shutdown, s.Fields = shutdownOf(t.text), s.Fields|FieldShutdown
		return
	}
	if s.Protocol == TCP {
		p.infoWord(t)
	}
}

// shutdownOf reads the arrow: each head that is gone is a direction closed.
func shutdownOf(arrow string) (bits uint8) {
	if arrow[0] == '-' {
		bits |= ShutdownReceive
	}
	if arrow[2] == '-' {
		bits |= ShutdownSend
	}
	return bits
}

func (p *lineParser) infoWord(t lineWord) {
	i := &p.line.Info
	ulp, isULP := strings.CutPrefix(t.text, "tcp-ulp-")
	switch {
	case isULP:
		p.details.ULP = strings.Clone(ulp)
	case t.text == "app_limited":
		i.AppLimited = true
		p.told(InfoDelivery)
	case t.text == "send":
		p.rate(p.next()) // of cwnd, mss and rtt
		p.told(InfoBase)
	case t.text == "pacing_rate":
		p.pacing(p.next())
	case t.text == "delivery_rate":
		i.DeliveryRate = p.rate(p.next())
		p.told(InfoDelivery)
	case ssOptions[t.text] != 0:
		i.Options |= ssOptions[t.text]
		p.seen.info = true
	case !p.seen.keys && isName(t.text):
		p.details.Congestion = strings.Clone(t.text)
		p.seen.info, p.seen.keys = true, true
	}
}

// isName tells what can be the name of a congestion control.
func isName(s string) bool {
	return len(s) < 16 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == "" // TCP_CA_NAME_MAX
}

func (p *lineParser) told(part InfoFields) {
	p.seen.info, p.seen.keys, p.seen.parts = true, true, max(p.seen.parts, part)
}

func (p *lineParser) pacing(t lineWord) {
	i := &p.line.Info
	rate, limit, ok := strings.Cut(t.text, "/")
	i.PacingRate = p.rate(lineWord{rate, t.col})
	if ok {
		i.MaxPacingRate = p.rate(lineWord{limit, t.col + len(rate) + 1})
	}
	p.told(InfoPacing)
}

// rate reads bits per second, 1.2Gbps or, of ss -n, 1234567890bps, as bytes.
func (p *lineParser) rate(t lineWord) uint64 {
	s, ok := strings.CutSuffix(t.text, "bps")
	if n, err := strconv.ParseUint(s, 10, 64); ok && err == nil {
		return n / 8
	}
	unit := 1.0
	for i, u := range []string{"K", "M", "G"} {
		if cut, found := strings.CutSuffix(s, u); found {
			s, unit = cut, math.Pow10(3*(i+1))
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if n = math.Round(n * unit / 8); !ok || err != nil || !(n >= 0) {
		p.fail(t, "is no rate")
		return 0
	}
	if n >= 1<<63 { // ss has multiplied 64 bits by 8
		return math.MaxUint64
	}
	return uint64(n)
}

// infoValue reads a key of -i. What it does not know is skipped.
func (p *lineParser) infoValue(key string, v lineWord) {
	i := &p.line.Info
	if k, ok := ssInfoKeys[key]; ok {
		p.told(k.part)
		p.infoNumber(k, v)
		return
	}
	switch key {
	case "wscale":
		p.wscale(v)
	case "rto":
		i.RTO = p.millis(InfoBase, v)
	case "rtt":
		rtt, mdev, _ := strings.Cut(v.text, "/")
		i.RTT = p.millis(InfoBase, lineWord{rtt, v.col})
		i.RTTVar = p.millis(InfoBase, lineWord{mdev, v.col + len(rtt) + 1})
	case "ato":
		i.ATO = p.millis(InfoBase, v)
	case "rcv_rtt":
		i.RcvRTT = p.millis(InfoBase, v)
	case "minrtt":
		i.MinRTT = p.millis(InfoDataSegs, v)
	case "busy":
		i.BusyTime = p.limited(v)
	case "rwnd_limited":
		i.RwndLimited = p.limited(v)
	case "sndbuf_limited":
		i.SndbufLimited = p.limited(v)
	case "retrans":
		p.retrans(v)
	case "dctcp": // fallback_mode
		p.details.Congestion = "dctcp"
	case "token":
		p.subflow(v)
	}
}

func (p *lineParser) infoNumber(k infoKey, v lineWord) {
	switch to := k.ptr(&p.line.Info).(type) {
	case *uint8:
		*to = uint8(p.number(v, 10, 8))
	case *uint32:
		*to = uint32(p.number(v, 10, 32))
	case *uint64:
		*to = p.number(v, 10, 64)
	case *time.Duration:
		*to = time.Duration(p.number(v, 10, 32)) * k.unit
	}
}

// millis reads milliseconds with a fraction.
func (p *lineParser) millis(part InfoFields, v lineWord) time.Duration {
	p.told(part)
	ms, err := strconv.ParseFloat(v.text, 64)
	if err != nil || !(ms >= 0 && ms < 1<<32) {
		p.fail(v, "is no time in milliseconds")
		return 0
	}
	return time.Duration(math.Round(ms*1000)) * time.Microsecond
}

// limited reads 12ms and 12ms(3.4%).
func (p *lineParser) limited(v lineWord) time.Duration {
	p.told(InfoLimits)
	s, _, _ := strings.Cut(v.text, "ms")
	n := p.number(lineWord{s, v.col}, 10, 64)
	return time.Duration(min(n, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
}

func (p *lineParser) wscale(v lineWord) {
	i := &p.line.Info
	snd, rcv, _ := strings.Cut(v.text, ",")
	i.SndWscale = uint8(p.number(lineWord{snd, v.col}, 10, 4))
	i.RcvWscale = uint8(p.number(lineWord{rcv, v.col + len(snd) + 1}, 10, 4))
	i.Options |= OptWscale
	p.told(InfoBase)
}

func (p *lineParser) retrans(v lineWord) {
	i := &p.line.Info
	now, all, _ := strings.Cut(v.text, "/")
	i.Retrans = uint32(p.number(lineWord{now, v.col}, 10, 32))
	i.TotalRetrans = uint32(p.number(lineWord{all, v.col + len(now) + 1}, 10, 32))
	p.told(InfoBase)
}

// subflow reads 5a2f(id:1)/77e0(id:0), remote and local.
func (p *lineParser) subflow(v lineWord) {
	m := &p.details.MPTCP
	remote, local, _ := strings.Cut(v.text, "/")
	for _, end := range []struct {
		text  string
		token *uint32
		id    *uint8
	}{{remote, &m.RemoteToken, &m.RemoteID}, {local, &m.LocalToken, &m.LocalID}} {
		number, id, ok := strings.Cut(strings.TrimSuffix(end.text, ")"), "(id:")
		if !ok {
			p.fail(v, "is no token of MPTCP")
			return
		}
		*end.token = uint32(p.number(lineWord{number, v.col}, 16, 32))
		*end.id = uint8(p.number(lineWord{id, v.col}, 10, 8))
	}
}

// congestionView reads what bbr:(…) and dctcp:(…) hold.
func (p *lineParser) congestionView(key string, v lineWord) {
	var bbr BBRInfo
	dctcp := DCTCPInfo{Enabled: true}
	for f := range strings.SplitSeq(v.text, ",") {
		name, text, _ := strings.Cut(f, ":")
		w := lineWord{text, v.col}
		switch key + "." + name {
		case "bbr.bw":
			bbr.Bandwidth = p.rate(w)
		case "bbr.mrtt":
			bbr.MinRTT = p.millis(0, w)
		case "bbr.pacing_gain":
			bbr.PacingGain = p.gain(w)
		case "bbr.cwnd_gain":
			bbr.WindowGain = p.gain(w)
		case "dctcp.ce_state":
			dctcp.CEState = uint16(p.number(w, 10, 16))
		case "dctcp.alpha":
			dctcp.Alpha = uint32(p.number(w, 10, 32))
		case "dctcp.ab_ecn":
			dctcp.ABECN = uint32(p.number(w, 10, 32))
		case "dctcp.ab_tot":
			dctcp.ABTotal = uint32(p.number(w, 10, 32))
		}
	}
	if key == "bbr" {
		p.details.BBR = bbr
	} else {
		p.details.DCTCP = dctcp
	}
}

// gain reads a factor, of which 256 is 1.
func (p *lineParser) gain(v lineWord) uint32 {
	g, err := strconv.ParseFloat(v.text, 64)
	if err != nil || !(g >= 0 && g < 1<<24) {
		p.fail(v, "is no gain")
		return 0
	}
	return uint32(math.Round(g * 256))
}

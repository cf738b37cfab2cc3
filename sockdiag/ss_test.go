package sockdiag

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ssRow is a line of ss -tanOei.
type ssRow struct {
	Socket                     // what ss shows of it; Info is left out
	values   map[string]string // key:value, and keys alone
	hasTimer bool
}

var (
	ssTimer = regexp.MustCompile(`^\((\w+),(?:(\d+)min)?(?:(\d+)(?:sec|\.))?(?:(\d+)ms)?,(\d+)\)$`)
	ssKey   = regexp.MustCompile(`^([a-z0-9_]+):(.+)$`)
)

// parseSS reads a line of ss -tanOeiH.
func parseSS(line string) (r ssRow, err error) {
	f := strings.Fields(line)
	if len(f) < 5 {
		return ssRow{}, fmt.Errorf("ss: %q: too short", line)
	}
	if r.State, err = ParseState(f[0]); err != nil {
		return ssRow{}, err
	}
	r.Protocol, r.Family = TCP, IPv6
	if f[3][0] != '[' && f[3][0] != '*' {
		r.Family = IPv4
	}
	if r.Local, err = ssAddr(f[3]); err == nil {
		r.Remote, err = ssAddr(f[4])
	}
	if err != nil {
		return ssRow{}, err
	}
	recv, send := ssNumber(f[1]), ssNumber(f[2])
	r.queues(uint32(recv), uint32(send))
	r.values = make(map[string]string)
	for _, word := range f[5:] {
		if m := ssKey.FindStringSubmatch(word); m != nil {
			r.values[m[1]] = m[2]
		} else if _, ok := r.values[word]; !ok { // "bbr bbr:(…)"
			r.values[word] = ""
		}
	}
	return r, r.readValues()
}

func (r *ssRow) readValues() (err error) {
	r.Inode, r.UID = uint32(ssNumber(r.values["ino"])), uint32(ssNumber(r.values["uid"]))
	r.Cookie, err = strconv.ParseUint(r.values["sk"], 16, 64)
	timer, ok := r.values["timer"]
	if !ok || err != nil {
		return err
	}
	m := ssTimer.FindStringSubmatch(timer)
	if m == nil {
		return fmt.Errorf("ss: timer %q", timer)
	}
	r.hasTimer = true
	for t := TimerOff; t <= TimerDelayAck; t++ {
		if t.String() == m[1] {
			r.Timer = t
		}
	}
	r.Expires = time.Duration(ssNumber(m[2]))*time.Minute + time.Duration(ssNumber(m[3]))*time.Second +
		time.Duration(ssNumber(m[4]))*time.Millisecond
	r.Retransmits = uint8(ssNumber(m[5]))
	return nil
}

// ssNumber reads a decimal number; 0 where ss leaves it out.
func ssNumber(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// ssAddr reads 192.0.2.1:80, [2001:db8::1]:80, [fe80::1]%eth0:80, *:80 and
// 0.0.0.0:*.
func ssAddr(s string) (netip.AddrPort, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("ss: address %q", s)
	}
	host, _, _ := strings.Cut(s[:i], "%")
	if host == "*" {
		host = "::"
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return netip.AddrPortFrom(a.Unmap(), uint16(ssNumber(s[i+1:]))), err
}

// granularity is what ss leaves out of a timer's value.
func (r *ssRow) granularity() time.Duration {
	switch {
	case r.Expires >= 10*time.Minute:
		return time.Minute
	case r.Expires >= 10*time.Second:
		return time.Second
	}
	return 10 * time.Millisecond // a jiffy at most
}

// compare checks s, read a moment before the line, against it.
func (r *ssRow) compare(t *testing.T, s Socket, elapsed time.Duration) {
	t.Helper()
	if late := s.Expires - r.Expires; r.hasTimer && (late < -10*time.Millisecond || late > elapsed+r.granularity()) {
		t.Errorf("%v: timer %v, ss %v and %v later", s.Local, s.Expires, r.Expires, elapsed)
	}
	want := r.Socket
	want.Options, want.Interface, want.Mark, want.CgroupID, want.Fields = s.Options, s.Interface, s.Mark, s.CgroupID, s.Fields
	want.Shutdown, want.V6Only, want.Expires, want.Info = s.Shutdown, s.V6Only, s.Expires, s.Info
	want.TOS, want.TClass, want.ClassID, want.Memory, want.details = s.TOS, s.TClass, s.ClassID, s.Memory, s.details
	if !r.hasTimer {
		want.Expires = 0
	}
	if s != want {
		t.Errorf("got %+v\nss  %+v", s, want)
	}
	if v, ok := r.values["v6only"]; ok != s.Has(FieldV6Only) || s.V6Only != (v == "1") {
		t.Errorf("%v: V6Only %v, ss %q", s.Local, s.V6Only, v)
	}
	if s.Has(FieldInfo) && s.State != Listen {
		r.compareInfo(t, &s)
	}
	for key, c := range asSS(&s) {
		if v, ok := r.values[key]; ok != c.shown || ok && v != c.value {
			t.Errorf("%v %v: %s %+v, ss %q", s.State, s.Local, key, c, v)
		}
	}
}

// shown is a value as ss shows it, if it does.
type shown struct {
	value string
	shown bool
}

// asSS writes what ss -m, -i and --tos show under one name.
func asSS(s *Socket) map[string]shown {
	m, d := s.Memory, s.Details()
	values := map[string]shown{
		"tos": {fmt.Sprintf("%#x", s.TOS), s.Has(FieldTOS)}, "tclass": {fmt.Sprintf("%#x", s.TClass), s.Has(FieldTClass)},
		"class_id": {fmt.Sprintf("%#x", s.ClassID), s.Has(FieldClassID)},
		"skmem": {fmt.Sprintf("(r%d,rb%d,t%d,tb%d,f%d,w%d,o%d,bl%d,d%d)", m.RcvAlloc, m.RcvBuf, m.SndAlloc, m.SndBuf,
			m.FwdAlloc, m.SndQueued, m.OptMem, m.RcvBacklog, m.Drops), s.Has(FieldMemory)},
	}
	if d.BBR != (BBRInfo{}) {
		values["bbr"] = shown{bbrAsSS(d.BBR), true}
	}
	for key, v := range values { // C's %#x of 0 is 0
		if v.value == "0x0" {
			values[key] = shown{"0", v.shown}
		}
	}
	if d.Congestion != "" && d.BBR == (BBRInfo{}) { // else the name and the view have one key
		values[d.Congestion] = shown{"", true}
	}
	return values
}

func bbrAsSS(i BBRInfo) string {
	s := fmt.Sprintf("(bw:%dbps,mrtt:%.6g", i.Bandwidth*8, i.MinRTT.Seconds()*1000)
	if i.PacingGain != 0 {
		s += fmt.Sprintf(",pacing_gain:%.6g", float64(i.PacingGain)/256)
	}
	if i.WindowGain != 0 {
		s += fmt.Sprintf(",cwnd_gain:%.6g", float64(i.WindowGain)/256)
	}
	return s + ")"
}

// compareInfo checks the fields of tcp_info that ss shows under a name of
// their own. ss leaves out what is zero.
func (r *ssRow) compareInfo(t *testing.T, s *Socket) {
	t.Helper()
	i := &s.Info
	for key, got := range map[string]uint64{
		"mss": uint64(i.SndMSS), "pmtu": uint64(i.PMTU), "rcvmss": uint64(i.RcvMSS), "advmss": uint64(i.AdvMSS),
		"cwnd": uint64(i.SndCwnd), "bytes_sent": i.BytesSent, "bytes_retrans": i.BytesRetrans,
		"bytes_acked": i.BytesAcked, "bytes_received": i.BytesReceived,
		"segs_out": uint64(i.SegsOut), "segs_in": uint64(i.SegsIn),
		"data_segs_out": uint64(i.DataSegsOut), "data_segs_in": uint64(i.DataSegsIn),
		"unacked": uint64(i.Unacked), "lost": uint64(i.Lost), "notsent": uint64(i.NotsentBytes),
		"delivered": uint64(i.Delivered), "rcv_space": uint64(i.RcvSpace),
		"rcv_ssthresh": uint64(i.RcvSsthresh), "snd_wnd": uint64(i.SndWnd), "backoff": uint64(i.Backoff),
	} {
		if want := ssNumber(r.values[key]); want != got {
			t.Errorf("%v %v: %s %d, ss %d", s.State, s.Local, key, got, want)
		}
	}
	pair := fmt.Sprintf("%d,%d", i.SndWscale, i.RcvWscale)
	if i.Options&OptWscale == 0 {
		pair = ""
	}
	if got := r.values["wscale"]; got != pair {
		t.Errorf("%v %v: wscale %s, ss %s", s.State, s.Local, pair, got)
	}
	retrans := fmt.Sprintf("%d/%d", i.Retrans, i.TotalRetrans)
	if got := r.values["retrans"]; got != retrans && (got != "" || i.Retrans+i.TotalRetrans != 0) {
		t.Errorf("%v %v: retrans %s, ss %s", s.State, s.Local, retrans, got)
	}
	if _, limited := r.values["app_limited"]; limited != i.AppLimited {
		t.Errorf("%v %v: app_limited %v, ss %v", s.State, s.Local, i.AppLimited, limited)
	}
	rtt, rttvar, _ := strings.Cut(r.values["rtt"], "/")
	r.compareTimes(t, s, map[string][2]any{
		"rto": {i.RTO, r.values["rto"]}, "rtt": {i.RTT, rtt}, "rttvar": {i.RTTVar, rttvar},
		"ato": {i.ATO, r.values["ato"]}, "minrtt": {i.MinRTT, r.values["minrtt"]},
		"rcv_rtt": {i.RcvRTT, r.values["rcv_rtt"]},
	})
}

// compareTimes checks times that ss shows in milliseconds, with six digits.
func (r *ssRow) compareTimes(t *testing.T, s *Socket, times map[string][2]any) {
	t.Helper()
	for key, v := range times {
		got, text := v[0].(time.Duration), v[1].(string)
		if s.State == SynSent && text == "" {
			continue // ss shows neither the default RTO nor what is not measured
		}
		want, _ := strconv.ParseFloat(text, 64)
		if have := got.Seconds() * 1000; math.Abs(have-want) > 1e-5*have {
			t.Errorf("%v %v: %s %v, ss %s ms", s.State, s.Local, key, got, text)
		}
	}
}

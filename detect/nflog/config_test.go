package nflog

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestConfigDefaults(t *testing.T) {
	groups := []uint16{7}
	want := Config{Groups: groups, Snaplen: 256, ReadBuffer: 4 << 20, Threshold: 1, FlushInterval: 100 * time.Millisecond}
	for _, c := range []Config{{Groups: groups}, {Groups: groups, ReadBuffer: -1, FlushInterval: -time.Second}} {
		if got := c.withDefaults(); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v: got %+v, want %+v", c, got, want)
		}
	}
	own := Config{
		NetNS: "/x", Groups: groups, Snaplen: 1, ReadBuffer: 2, Threshold: 3, FlushInterval: 4,
		Conntrack: WithConntrack, GoNflog: true,
	}
	if got := own.withDefaults(); !reflect.DeepEqual(got, own) {
		t.Errorf("got %+v, want %+v", got, own)
	}
}

func TestConfigRefused(t *testing.T) {
	for want, c := range map[string]*Config{
		"Groups is empty":   nil,
		"Groups is empty: ": {},
		"group 5 twice":     {Groups: []uint16{5, 6, 5}},
	} {
		r, err := Listen(c)
		if r != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, %v, want %q", c, r, err, want)
		}
	}
}

func TestCentiseconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		1: 1, 10 * time.Millisecond: 1, 10*time.Millisecond + 1: 2, 95 * time.Millisecond: 10,
		time.Second: 100, time.Hour: 360000, 1<<63 - 1: 360000,
	} {
		c := Config{FlushInterval: d}
		if got := c.centiseconds(); got != want {
			t.Errorf("%v: got %d, want %d", d, got, want)
		}
	}
}

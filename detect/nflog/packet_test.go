package nflog

import "testing"

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"prerouting": Hook(0).String(), "input": Hook(1).String(), "forward": Hook(2).String(),
		"output": Hook(3).String(), "postrouting": Hook(4).String(), "ingress": Hook(5).String(),
		"hook 6": Hook(6).String(),

		"ip": IPv4.String(), "arp": ARP.String(), "netdev": NetDev.String(), "bridge": Bridge.String(),
		"ip6": IPv6.String(), "family 1": Family(1).String(),

		"established": CTInfo(0).String(), "related": CTInfo(1).String(), "new": CTInfo(2).String(),
		"established reply": CTInfo(3).String(), "related reply": CTInfo(4).String(),
		"new reply": CTInfo(5).String(), "ctinfo 6": CTInfo(6).String(), "untracked": CTInfo(7).String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestReply(t *testing.T) {
	for c := range CTInfo(9) {
		want := c == EstablishedReply || c == RelatedReply || c == NewReply
		if got := c.Reply(); got != want {
			t.Errorf("%v: Reply is %t, want %t", c, got, want)
		}
	}
}

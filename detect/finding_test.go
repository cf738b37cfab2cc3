package detect

import "testing"

func TestStrings(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{Info.String(), "info"}, {Warning.String(), "warning"}, {Critical.String(), "critical"},
		{Severity(0).String(), "0"}, {Severity(9).String(), "9"},
		{Unknown.String(), "unknown"}, {Possible.String(), "possible"}, {Likely.String(), "likely"}, {Certain.String(), "certain"},
		{Confidence(9).String(), "9"},
		{Setting{"net.ipv4.tcp_fin_timeout", "60"}.String(), "net.ipv4.tcp_fin_timeout = 60"},
		{Finding{Severity: Warning, Confidence: Possible, Subject: "this", Cause: "that"}.String(), "warning: this (possible): that"},
		{Finding{Severity: Critical, Confidence: Certain, Subject: "this", Cause: "that", Fix: []string{"one", "two"}}.String(),
			"critical: this (certain): that; fix: one; or: two"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// The grades can be compared.
func TestOrder(t *testing.T) {
	if Info >= Warning || Warning >= Critical || Unknown >= Possible || Possible >= Likely || Likely >= Certain {
		t.Error("the grades are not in order")
	}
}

func TestZeroHost(t *testing.T) {
	for _, d := range []Detector{Ghosts{}, LostFlows{}, Pressure{}, PortReuse{}, PortSpace{}} {
		if found := Find(Host{}, d); found != nil {
			t.Errorf("%s: %v", d.Name(), found)
		}
	}
}

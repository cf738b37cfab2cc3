package main

import (
	"context"
	"fmt"

	"github.com/connsleuth/connsleuth/detect/packet"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// hang tells of the connections that are established and have received nothing
// from somebody who sends data with PSH|RST.
func (s *seen) hang() error {
	if len(s.hung) == 0 {
		return nil
	}
	d, err := sockdiag.Dial(nil)
	if err != nil {
		return err
	}
	defer d.Close() //nolint:errcheck // nothing is under way
	for c, err := range d.All(context.Background(), sockdiag.Query{States: sockdiag.States(sockdiag.Established), Info: true}) {
		if err != nil {
			return err
		}
		if _, ok := s.hung[c.Remote.Addr()]; ok && c.Info.Has(sockdiag.InfoBytes) && c.Info.BytesReceived == 0 {
			s.hung[c.Remote.Addr()]++
		}
	}
	for a, n := range s.hung {
		if n > 0 {
			s.tell(&row{key{"hung", a.String(), ""}, n, packet.Likely.String(), fmt.Sprintf(
				"connections of %v are established and have received nothing: does a rule drop RST?", a)})
		}
	}
	return nil
}

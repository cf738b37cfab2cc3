package cut

import (
	"context"
	"fmt"

	"github.com/connsleuth/connsleuth/ban"
	"github.com/connsleuth/connsleuth/sockdiag"
)

// Sessions returns a ban.System that protects the peers of live
// connections to the given ports of this host, such as 22. It takes no
// privilege.
func Sessions(diag *sockdiag.Conn, ports ...uint16) ban.System {
	return func(ctx context.Context) ([]ban.Protected, error) {
		var out []ban.Protected
		for _, port := range ports {
			q := sockdiag.Query{States: sockdiag.States(sockdiag.Established, sockdiag.CloseWait), LocalPort: port}
			for s, err := range diag.All(ctx, q) {
				if err != nil {
					return nil, fmt.Errorf("cut: sessions: %w", err)
				}
				out = append(out, ban.Protected{Prefix: ban.Host(s.Remote.Addr()), Why: fmt.Sprintf("live session on port %d", port)})
			}
		}
		return out, nil
	}
}

// Package jailer runs a fail2ban-server for tests, with a configuration, a socket
// and logs of its own, and with the filters and jails of package ban/fail2ban.
package jailer

package main

import (
	"errors"
	"net"

	gosigar "github.com/elastic/gosigar/sys/linux"
	"github.com/prometheus/procfs"
	gopsutil "github.com/shirou/gopsutil/v4/net"
	vishvananda "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func socketsVishvananda() (outcome, error) {
	v4, err4 := vishvananda.SocketDiagTCP(unix.AF_INET)
	v6, err6 := vishvananda.SocketDiagTCP(unix.AF_INET6)
	return outcome{entries: len(v4) + len(v6)}, errors.Join(err4, err6)
}

func infoVishvananda() (outcome, error) {
	v4, err4 := vishvananda.SocketDiagTCPInfo(unix.AF_INET)
	v6, err6 := vishvananda.SocketDiagTCPInfo(unix.AF_INET6)
	return outcome{entries: len(v4) + len(v6)}, errors.Join(err4, err6)
}

// destroyVishvananda names sockets by their addresses: it knows no cookies.
func destroyVishvananda() (done outcome, err error) {
	sockets, err := vishvananda.SocketDiagTCP(unix.AF_INET)
	for _, s := range sockets {
		if err != nil {
			break
		}
		if s.State != unix.BPF_TCP_ESTABLISHED || !isClient(s.ID.DestinationPort) {
			continue
		}
		err = vishvananda.SocketDestroy(
			&net.TCPAddr{IP: s.ID.Source, Port: int(s.ID.SourcePort)},
			&net.TCPAddr{IP: s.ID.Destination, Port: int(s.ID.DestinationPort)})
		done.entries++
	}
	return done, err
}

func socketsGosigar() (done outcome, err error) {
	for _, family := range []gosigar.AddressFamily{gosigar.AF_INET, gosigar.AF_INET6} {
		rows, err := gosigar.NetlinkInetDiag(gosigar.NewInetDiagReqV2(family))
		if err != nil {
			return done, err
		}
		done.entries += len(rows)
	}
	return done, nil
}

func socketsProcfs() (outcome, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return outcome{}, err
	}
	v4, err4 := fs.NetTCP()  //nolint:staticcheck // deprecated in favour of netlink, and used
	v6, err6 := fs.NetTCP6() //nolint:staticcheck // as above
	return outcome{entries: len(v4) + len(v6)}, errors.Join(err4, err6)
}

func socketsGopsutil() (outcome, error) {
	rows, err := gopsutil.ConnectionsWithoutUids("tcp")
	return outcome{entries: len(rows)}, err
}

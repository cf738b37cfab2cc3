package sockdiag

import "time"

// infoKey is a field of TCPInfo under its names in text.
type infoKey struct {
	json string // the kernel's name without tcpi_, with the unit of times
	ss   string // the key of ss -i, where the value is one whole number
	part InfoFields
	unit time.Duration // of times
	ptr  func(*TCPInfo) any
}

// infoKeys are all fields of TCPInfo but the parts that are present. The bits
// that came later (tcpi_delivery_rate_app_limited, tcpi_fastopen_client_fail)
// stand in what was padding of the base.
var infoKeys = []infoKey{
	{"state", "", InfoBase, 0, func(t *TCPInfo) any { return &t.State }},
	{"ca_state", "", InfoBase, 0, func(t *TCPInfo) any { return &t.CAState }},
	{"retransmits", "", InfoBase, 0, func(t *TCPInfo) any { return &t.Retransmits }},
	{"probes", "", InfoBase, 0, func(t *TCPInfo) any { return &t.Probes }},
	{"backoff", "backoff", InfoBase, 0, func(t *TCPInfo) any { return &t.Backoff }},
	{"options", "", InfoBase, 0, func(t *TCPInfo) any { return &t.Options }},
	{"snd_wscale", "", InfoBase, 0, func(t *TCPInfo) any { return &t.SndWscale }},
	{"rcv_wscale", "", InfoBase, 0, func(t *TCPInfo) any { return &t.RcvWscale }},
	{"app_limited", "", InfoBase, 0, func(t *TCPInfo) any { return &t.AppLimited }},
	{"fastopen_client_fail", "", InfoBase, 0, func(t *TCPInfo) any { return &t.FastOpenFail }},
	{"rto_us", "", InfoBase, time.Microsecond, func(t *TCPInfo) any { return &t.RTO }},
	{"ato_us", "", InfoBase, time.Microsecond, func(t *TCPInfo) any { return &t.ATO }},
	{"snd_mss", "mss", InfoBase, 0, func(t *TCPInfo) any { return &t.SndMSS }},
	{"rcv_mss", "rcvmss", InfoBase, 0, func(t *TCPInfo) any { return &t.RcvMSS }},
	{"unacked", "unacked", InfoBase, 0, func(t *TCPInfo) any { return &t.Unacked }},
	{"sacked", "sacked", InfoBase, 0, func(t *TCPInfo) any { return &t.Sacked }},
	{"lost", "lost", InfoBase, 0, func(t *TCPInfo) any { return &t.Lost }},
	{"retrans", "", InfoBase, 0, func(t *TCPInfo) any { return &t.Retrans }},
	{"fackets", "fackets", InfoBase, 0, func(t *TCPInfo) any { return &t.Fackets }},
	{"last_data_sent_ms", "lastsnd", InfoBase, time.Millisecond, func(t *TCPInfo) any { return &t.LastDataSent }},
	{"last_ack_sent_ms", "", InfoBase, time.Millisecond, func(t *TCPInfo) any { return &t.LastAckSent }},
	{"last_data_recv_ms", "lastrcv", InfoBase, time.Millisecond, func(t *TCPInfo) any { return &t.LastDataRecv }},
	{"last_ack_recv_ms", "lastack", InfoBase, time.Millisecond, func(t *TCPInfo) any { return &t.LastAckRecv }},
	{"pmtu", "pmtu", InfoBase, 0, func(t *TCPInfo) any { return &t.PMTU }},
	{"rcv_ssthresh", "rcv_ssthresh", InfoBase, 0, func(t *TCPInfo) any { return &t.RcvSsthresh }},
	{"rtt_us", "", InfoBase, time.Microsecond, func(t *TCPInfo) any { return &t.RTT }},
	{"rttvar_us", "", InfoBase, time.Microsecond, func(t *TCPInfo) any { return &t.RTTVar }},
	{"snd_ssthresh", "ssthresh", InfoBase, 0, func(t *TCPInfo) any { return &t.SndSsthresh }},
	{"snd_cwnd", "cwnd", InfoBase, 0, func(t *TCPInfo) any { return &t.SndCwnd }},
	{"advmss", "advmss", InfoBase, 0, func(t *TCPInfo) any { return &t.AdvMSS }},
	{"reordering", "reordering", InfoBase, 0, func(t *TCPInfo) any { return &t.Reordering }},
	{"rcv_rtt_us", "", InfoBase, time.Microsecond, func(t *TCPInfo) any { return &t.RcvRTT }},
	{"rcv_space", "rcv_space", InfoBase, 0, func(t *TCPInfo) any { return &t.RcvSpace }},
	{"total_retrans", "", InfoBase, 0, func(t *TCPInfo) any { return &t.TotalRetrans }},

	{"pacing_rate", "", InfoPacing, 0, func(t *TCPInfo) any { return &t.PacingRate }},
	{"max_pacing_rate", "", InfoPacing, 0, func(t *TCPInfo) any { return &t.MaxPacingRate }},
	{"bytes_acked", "bytes_acked", InfoBytes, 0, func(t *TCPInfo) any { return &t.BytesAcked }},
	{"bytes_received", "bytes_received", InfoBytes, 0, func(t *TCPInfo) any { return &t.BytesReceived }},
	{"segs_out", "segs_out", InfoSegs, 0, func(t *TCPInfo) any { return &t.SegsOut }},
	{"segs_in", "segs_in", InfoSegs, 0, func(t *TCPInfo) any { return &t.SegsIn }},
	{"notsent_bytes", "notsent", InfoDataSegs, 0, func(t *TCPInfo) any { return &t.NotsentBytes }},
	{"min_rtt_us", "", InfoDataSegs, time.Microsecond, func(t *TCPInfo) any { return &t.MinRTT }},
	{"data_segs_in", "data_segs_in", InfoDataSegs, 0, func(t *TCPInfo) any { return &t.DataSegsIn }},
	{"data_segs_out", "data_segs_out", InfoDataSegs, 0, func(t *TCPInfo) any { return &t.DataSegsOut }},
	{"delivery_rate", "", InfoDelivery, 0, func(t *TCPInfo) any { return &t.DeliveryRate }},
	{"busy_time_us", "", InfoLimits, time.Microsecond, func(t *TCPInfo) any { return &t.BusyTime }},
	{"rwnd_limited_us", "", InfoLimits, time.Microsecond, func(t *TCPInfo) any { return &t.RwndLimited }},
	{"sndbuf_limited_us", "", InfoLimits, time.Microsecond, func(t *TCPInfo) any { return &t.SndbufLimited }},
	{"delivered", "delivered", InfoDelivered, 0, func(t *TCPInfo) any { return &t.Delivered }},
	{"delivered_ce", "delivered_ce", InfoDelivered, 0, func(t *TCPInfo) any { return &t.DeliveredCE }},
	{"bytes_sent", "bytes_sent", InfoRetransmits, 0, func(t *TCPInfo) any { return &t.BytesSent }},
	{"bytes_retrans", "bytes_retrans", InfoRetransmits, 0, func(t *TCPInfo) any { return &t.BytesRetrans }},
	{"dsack_dups", "dsack_dups", InfoRetransmits, 0, func(t *TCPInfo) any { return &t.DSACKDups }},
	{"reord_seen", "reord_seen", InfoRetransmits, 0, func(t *TCPInfo) any { return &t.ReordSeen }},
	{"rcv_ooopack", "rcv_ooopack", InfoWindow, 0, func(t *TCPInfo) any { return &t.RcvOOOPack }},
	{"snd_wnd", "snd_wnd", InfoWindow, 0, func(t *TCPInfo) any { return &t.SndWnd }},
	{"rcv_wnd", "rcv_wnd", InfoRehash, 0, func(t *TCPInfo) any { return &t.RcvWnd }},
	{"rehash", "rehash", InfoRehash, 0, func(t *TCPInfo) any { return &t.Rehash }},
	{"total_rto", "", InfoTimeouts, 0, func(t *TCPInfo) any { return &t.TotalRTO }},
	{"total_rto_recoveries", "", InfoTimeouts, 0, func(t *TCPInfo) any { return &t.TotalRTORecoveries }},
	{"total_rto_time_ms", "", InfoTimeouts, time.Millisecond, func(t *TCPInfo) any { return &t.TotalRTOTime }},
}

// ssInfoKeys are those that ss -i shows as one whole number.
var ssInfoKeys = func() map[string]infoKey {
	m := make(map[string]infoKey)
	for _, k := range infoKeys {
		if k.ss != "" {
			m[k.ss] = k
		}
	}
	return m
}()

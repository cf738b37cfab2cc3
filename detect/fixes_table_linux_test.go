package detect

// proofs are of the sentences with backquotes that the source has. A part in
// braces, or a verb, is what is put in.
var proofs = map[string]proof{
	"see who should accept: `ss -tlnp 'sport = :%d'`, and in its stack, or /proc/PID/task/*/wchan, what it does instead":      {test: "TestLabScenes"},
	"now, for one process: `prlimit --nofile=%s:%s --pid %d`":                                                                 {test: "TestLabLimits"},
	"in the file: `{rename(s.Name, today)}`":                                                                                  {test: "TestLabOldNames"},
	"{set(today, s.Value)}, and in the file: `{rename(s.Name, today)}`":                                                       {test: "TestLabOldNames"},
	"take it out: `{withoutLine(s.Name)}`":                                                                                    {test: "TestLabOldNames"},
	"`echo %d > /sys/module/nf_conntrack/parameters/hashsize`":                                                                {test: "TestLabMachine", on: emulated},
	"`sysctl -w %s=\"%d %d %d\"`, as far as there is memory":                                                                  {test: "TestLabMachine", on: emulated},
	"at the next boot: `echo options nf_conntrack hashsize=%d > /etc/modprobe.d/nf_conntrack.conf`":                           {test: "TestLabOldNames"},
	"see how many there can be: `sysctl net.ipv4.tcp_max_tw_buckets`, and of clients `sysctl net.ipv4.ip_local_port_range`":   {test: "TestLabCommands"},
	"see where to: `ss -tn state syn-sent`, or `conntrack -L -p tcp --state SYN_SENT`":                                        {test: "TestLabCommands"},
	"see whose they are: `ss -tn state syn-recv`":                                                                             {test: "TestLabCommands"},
	"see whose: `ss -tnp state close-wait`, or Leaks":                                                                         {test: "TestLabCommands"},
	"see with whom: `ss -tn state closing`":                                                                                   {test: "TestLabCommands"},
	"see with whom: `ss -tn state fin-wait-1`":                                                                                {test: "TestLabCommands"},
	"see with whom: `ss -tn state fin-wait-2`":                                                                                {test: "TestLabCommands"},
	"see with whom: `ss -tn state last-ack`":                                                                                  {test: "TestLabCommands"},
	"see with whom: `ss -tn state time-wait`":                                                                                 {test: "TestLabCommands"},
	"if nobody needs the %d entries from %v: ban it, then `%s`":                                                               {test: "TestLabPressure"},
	"keep %v entries for a shorter time: `sysctl -w %s=%d`%s":                                                                 {test: "TestLabPressure"},
	"more chains, in the initial network namespace: `sysctl -w net.netfilter.nf_conntrack_buckets=%d`":                        {test: "TestLabMachine", on: emulated},
	", with shorter chains: `sysctl -w net.netfilter.nf_conntrack_buckets=%d`":                                                {test: "TestLabMachine", on: emulated},
	"raise the limit, in the initial network namespace: `sysctl -w net.netfilter.nf_conntrack_max=%d`, which is %s when full": {test: "TestLabMachine", on: emulated},
	"see the kernel's reasons in its log: `sysctl -w net.netfilter.nf_conntrack_log_invalid=255`":                             {test: "TestLabCommands"},
	"see what fills the table: `conntrack -L -o extended`":                                                                    {test: "TestLabCommands"},
	moreAddresses: {test: "TestLabPortSpaceExhausted"},
	"raise the limit, as root: `prlimit --pid %d --nofile=%d:%[2]d`, and LimitNOFILE=%[2]d in the unit for the next start": {test: "TestLabLimits", on: asRoot},
	"raise the soft limit to the hard one, at once: `prlimit --pid %d --nofile=%s:`":                                       {test: "TestLabLimits"},
	"unless it is one of yours, ban %s or limit it, and end its %d connections: `ss -K dst %s`":                            {test: "TestLabDescriptors"},
	"pick up nothing in the middle: `sysctl -w net.netfilter.nf_conntrack_tcp_loose=0`, at the cost of every connection " +
		"that lives while the tracker starts or its table is flushed": {test: "TestLabScenes"},
	"close the socket at end of file, when read(2) returns 0; see them: `ss -tnpe state close-wait '{k.service.filter()}'`":                         {test: "TestLabScenes"},
	"close the socket some time after shutdown(2): a read timeout in the application; see them: `ss -tnpe state fin-wait-2 '{k.service.filter()}'`": {test: "TestLabFinWait2"},
	"end them now: `ss -K state %s '%s'`":                           {test: "TestLabFinWait1Command"},
	"end them now: `ss -K state fin-wait-2 '{k.service.filter()}'`": {test: "TestLabFinWait2"},
	"give up sooner on peers that answer nothing: `sysctl -w net.ipv4.tcp_retries2=8`, at the cost that closed connections " +
		"to peers that answer and do not read never end; on all: TCP_USER_TIMEOUT, set by the application": {test: "TestLabPatient", on: emulated},
	"see where a filter is on the way, if all destinations should answer: `traceroute -n -T -p %d %v`":                                                                 {test: "TestLabForwardedScan"},
	"see where the packets end: `traceroute -n -T -p %d %v`":                                                                                                           {test: "TestLabForwardedScan"},
	"see which process it is: `ss -tnp state syn-sent dport = :%d`":                                                                                                    {test: "TestLabScenes"},
	"see which process it is, on %v: `ss -tnp state syn-sent dport = :%d`":                                                                                             {test: "TestLabForwardedScan"},
	"stop it meanwhile: `nft add rule inet filter forward %s saddr %v tcp dport %d ct state new reject`":                                                               {test: "TestLabForwardedScan"},
	"stop it meanwhile: `nft add rule inet filter output tcp dport %d ct state new reject`":                                                                            {test: "TestLabScenes"},
	"see which: `ss -tlnm` shows as d of skmem what each listener has dropped":                                                                                         {test: "TestLabAcceptBurst"},
	"see which it is: `ss -tnp state close-wait`":                                                                                                                      {test: "TestLabCommands"},
	"delete the entry: `{DeleteCommand(f)}`":                                                                                                                           {test: "TestLabScenes"},
	"free the ports sooner of connections that close from now on: `sysctl -w {timeoutName(conntrack.TCPTimeWait)}=30`":                                                 {test: "TestLabPatient", on: emulated},
	"let no source open more: `nft 'add rule inet filter input %s'`":                                                                                                   {test: "TestLabRate"},
	"ban the source, in the set that your rules drop: `nft add element inet filter {set} { {bare(p)} }`; then end what it has: `ss -tK state connected dst {bare(p)}`": {test: "TestLabScenes"},
}

// settingProofs are of the settings that are advised by set, by the name or
// what stands for it in the source.
var settingProofs = map[string]proof{
	recycle:                       {on: nowhere, why: "no kernel since Linux 4.12 has it"},
	fileMax:                       {test: "TestLabMachine", on: emulated},
	"net.core.netdev_max_backlog": {test: "TestLabMachine", on: emulated},
	somaxconn:                     {test: "TestLabAcceptBurst"},
	"net.netfilter.nf_conntrack_tcp_timeout_established": {test: "TestAuditOfHost"},
	"net.netfilter.nf_conntrack_tcp_timeout_close_wait":  {test: "TestAuditOfHost"},
	"net.netfilter.nf_conntrack_tcp_timeout_last_ack":    {test: "TestLabLonger"},
	"net.netfilter.nf_conntrack_generic_timeout":         {test: "TestAuditOfHost"},
	"net.netfilter.nf_conntrack_tcp_loose":               {test: "TestAuditOfHost"},
	"net.ipv4.tcp_retries1":                              {test: "TestAuditOfHost"},
	"net.ipv4.tcp_retries2":                              {test: "TestAuditOfHost"},
	"net.ipv4.tcp_rfc1337":                               {test: "TestAuditOfHost"},
	"net.ipv4.conf.all.rp_filter":                        {test: "TestAuditOfHost"},
	keepaliveTime:                                        {test: "TestAuditOfHost"}, keepaliveIntvl: {test: "TestAuditOfHost"}, keepaliveCount: {test: "TestAuditOfHost"},
	maxTimeWait: {test: "TestLabPatient", on: emulated}, synBacklog: {test: "TestAuditOfHost"}, synRetries: {test: "TestAuditOfHost"},
	synAckRetries: {test: "TestAuditOfHost"}, orphanRetries: {test: "TestAuditOfHost"}, finTimeout: {test: "TestAuditOfHost"},
	timestamps: {test: "TestAuditOfHost"}, syncookies: {test: "TestAuditOfHost"},
}

// remedyProofs are of the settings that are advised by remedy, by the detector
// that prints them.
var remedyProofs = map[string]proof{
	"Census: " + finTimeout:       {test: "TestLabPatient", on: emulated},
	"Census: " + orphanRetries:    {test: "TestLabPatient", on: emulated},
	"Census: " + synAckRetries:    {test: "TestLabPatient", on: emulated},
	"Census: " + syncookies:       {test: "TestLabPatient", on: emulated},
	"IdleFlood: " + keepaliveTime: {test: "TestLabPatient", on: emulated},
	"Leaks: " + finTimeout:        {test: "TestLabPatient", on: emulated},
	"Leaks: " + keepaliveTime:     {test: "TestLabPatient", on: emulated},
	"Leaks: " + orphanRetries:     {test: "TestLabPatient", on: emulated},
	"OutboundScan: " + synRetries: {test: "TestLabPatient", on: emulated},
	"PerSource: " + finTimeout:    {test: "TestLabPatient", on: emulated},
	"PerSource: " + keepaliveTime: {test: "TestLabPatient", on: emulated},
	"PerSource: " + orphanRetries: {test: "TestLabPatient", on: emulated},
	"PerSource: " + syncookies:    {test: "TestLabPatient", on: emulated},
	"SynFlood: " + synAckRetries:  {test: "TestLabPatient", on: emulated},
	"SynFlood: " + synBacklog:     {test: "TestLabPatient", on: emulated},
	"SynFlood: " + syncookies:     {test: "TestLabPatient", on: emulated},
}

// fixRemedies are the last arguments of remedy in the source, and of which
// detectors' settings they are.
func fixRemedies() map[string][]string {
	var census, perSource []string
	for i := range meanings {
		for _, r := range meanings[i].remedies {
			census = append(census, "Census: "+r.setting)
		}
	}
	for _, r := range stateRemedies {
		perSource = append(perSource, "PerSource: "+r.setting)
	}
	return map[string][]string{
		"census.go: r.setting":        census,
		"idleflood.go: keepaliveTime": {"IdleFlood: " + keepaliveTime},
		"kernellog.go: finTimeout":    {"Leaks: " + finTimeout},
		"kernellog.go: orphanRetries": {"Leaks: " + orphanRetries},
		"kernellog.go: syncookies":    {"SynFlood: " + syncookies},
		"leaktext.go: finTimeout":     {"Leaks: " + finTimeout},
		"leaktext.go: keepaliveTime":  {"Leaks: " + keepaliveTime},
		"leaktext.go: orphanRetries":  {"Leaks: " + orphanRetries},
		"outboundscan.go: synRetries": {"OutboundScan: " + synRetries},
		"persource.go: r.setting":     perSource,
		"synflood.go: synAckRetries":  {"SynFlood: " + synAckRetries},
		"synflood.go: synBacklog":     {"SynFlood: " + synBacklog},
		"synflood.go: syncookies":     {"SynFlood: " + syncookies},
	}
}

// fixSettings are the first arguments of set in the source, and the settings that
// they are.
func fixSettings() map[string][]string {
	var judged, tcp []string
	for _, r := range rules {
		if r.judge != nil {
			judged = append(judged, r.name)
		}
	}
	for _, state := range []string{"established", "close_wait", "last_ack"} {
		tcp = append(tcp, "net.netfilter.nf_conntrack_tcp_timeout_"+state)
	}
	return map[string][]string{
		"name": judged, "a.Name": judged, "timeout.Name": tcp[:2], "timeoutName(state)": tcp,
		"today":     nil, // what an old name is called now: the command is that of its own advice
		"somaxconn": {somaxconn}, "fileMax": {fileMax}, "recycle": {recycle}, "timestamps": {timestamps},
		"keepaliveTime": {keepaliveTime}, "maxTimeWait": {maxTimeWait},
	}
}

package sockdiag

// associationStates are the states of TCP that mean the same as those of an
// association (enum sctp_state in linux/sctp.h of the kernel).
var associationStates = [...]State{
	0: Close,       // SCTP_STATE_CLOSED
	1: SynSent,     // SCTP_STATE_COOKIE_WAIT
	2: SynSent,     // SCTP_STATE_COOKIE_ECHOED
	3: Established, // SCTP_STATE_ESTABLISHED
	4: FinWait1,    // SCTP_STATE_SHUTDOWN_PENDING
	5: FinWait2,    // SCTP_STATE_SHUTDOWN_SENT
	6: CloseWait,   // SCTP_STATE_SHUTDOWN_RECEIVED
	7: LastAck,     // SCTP_STATE_SHUTDOWN_ACK_SENT
}

// sctp translates the numbers that sctp_diag has of its own: an association's
// state and timer (SCTP_EVENT_TIMEOUT_T3_RTX, the only one shown), and the
// queues of an endpoint, which count connections in every state.
func (s *Socket) sctp() {
	if !s.Has(FieldAssociation) {
		s.RecvQueue, s.SendQueue = 0, 0
		return
	}
	s.State = associationState(s.State)
	if s.Timer != TimerOff {
		s.Timer = TimerOn
	}
}

func associationState(s State) State {
	if int(s) < len(associationStates) {
		return associationStates[s]
	}
	return 0
}

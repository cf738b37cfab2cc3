package fail2ban

// For the tests' own commands.
const EndOfCommand = endOfCommand

var AppendRequest = appendRequest

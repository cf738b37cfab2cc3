package packet

// Confidence is how sure a signature is of what it says. The values are those
// of detect.Confidence, which converts from it.
type Confidence uint8

// The confidences. Zero, Unknown, is nothing said.
const (
	Unknown Confidence = iota
	// Possible fits what was seen, as other causes do.
	Possible
	// Likely fits what was seen, and little else does.
	Likely
	// Certain was seen itself.
	Certain
)

var confidenceNames = [...]string{"unknown", "possible", "likely", "certain"}

// String returns the confidence in lower case.
func (c Confidence) String() string { return nameOf(c, confidenceNames[:]) }

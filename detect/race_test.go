//go:build race

package detect_test

// raceDetector tells that the race detector watches, and slows all down.
const raceDetector = true

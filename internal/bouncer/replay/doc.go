// Package replay stages incidents for the tests of the examples that ban: a
// server with visitors, floods of theirs, and an example at work in the server.
package replay

// Package program is for the tests of a command: it runs the command in a host of
// a lab, as a process of its own.
package program

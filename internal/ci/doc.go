// Package ci holds the rules of the repository that no linter knows, as tests:
// which package may import which, and what every package and file must have.
// They read the source files themselves, those of every operating system and
// build tag, and need no tool.
//
// Directory kernels beside it has the program that runs the tests on other
// kernels.
package ci

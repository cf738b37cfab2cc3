// Package bantest is the suite that every ban.Backend passes.
//
//	func TestBackend(t *testing.T) {
//		bantest.Run(t, bantest.Suite{Open: func(t *testing.T) bantest.Place { … }})
//	}
//
// It calls the backend as a program would, and reads back what is in force:
// each ban, its end, and nothing else. A Place that cannot do something says so,
// and then the suite wants a refusal with the right error in its stead.
package bantest

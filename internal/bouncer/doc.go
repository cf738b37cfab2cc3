// Package bouncer is what the examples that ban have in common: their flags, a
// backend behind a guard and a journal, and what is done with a ban: tried or
// put in force, what the source has open cut, and all of it told.
//
// By default nothing is changed: bans are kept in memory, behind the same guard,
// and each is told with what it would cut.
package bouncer

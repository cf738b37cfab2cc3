// Package incidents holds the incidents this project exists for as code: each
// sets up private hosts, makes the trouble happen with ordinary sockets, has
// the project's packages detect and explain it, carries out the remedy, and
// checks every step on the kernel. Tests and examples/incident share them.
//
// Nothing is canned: what is reported was read from the kernel in that run. A
// step that does not come out as it should is reported as failed.
//
// Not staged are late duplicates (C10), which Linux 6.1 and later let through
// without a word, and long hash chains (S3), whose limit is random and whose
// hash is keyed: nobody can aim at a bucket. Their rows are tested with evidence
// alone.
package incidents

//go:build !planted

// Package planted lets `make attack-planted` prove that the attack harness bites:
// in a binary built with the tag "planted", each name drops one check, so that
// one group of attacks has something to find. In every other build Weak is a
// constant, the compiler removes each branch that asks it, and nothing of this is
// in the binary; a test looks.
package planted

// On reports whether this binary may be weak.
const On = false

// Weak reports whether the check of this name is dropped: never, in this build.
func Weak(string) bool { return On }

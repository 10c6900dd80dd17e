//go:build planted

package planted

import "os"

// On reports whether this binary may be weak.
const On = true

// Weak reports whether the environment names this check as the one to drop.
func Weak(name string) bool { return os.Getenv("BONAFIDE_PLANTED") == name }

//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package client

import (
	"errors"
	"io/fs"
	"os"
)

func tryLock(*os.File) (bool, error) { return false, errors.ErrUnsupported }

func othersMayRead(mode fs.FileMode) bool { return mode.Perm()&0o077 != 0 }

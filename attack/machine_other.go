//go:build !amd64

package main

import "debug/elf"

const elfMachine = elf.EM_NONE

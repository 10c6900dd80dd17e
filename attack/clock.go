package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// clock moves the time of one running process. The binary is the one that
// ships: what is changed is the page that the kernel maps into every process
// for reading the time (the vDSO), in this process alone. There the function
// clock_gettime is replaced by one that asks the kernel and adds an offset.
// libfaketime cannot do that: a static Go binary loads no library.
type clock struct {
	mem        *os.File
	table      int64 // address of two offsets: of the calendar and of the stopwatch
	real, mono time.Duration
}

// stub is the new clock_gettime(edi, rsi) of amd64; behind it, aligned, come the
// two offsets in seconds.
var stub = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228
	0x0f, 0x05, // syscall
	0x85, 0xc0, // test eax, eax
	0x75, 0x15, // jne end
	0x83, 0xff, 0x01, // cmp edi, 1
	0x77, 0x10, // ja end
	0x89, 0xf9, // mov ecx, edi
	0x48, 0x8d, 0x15, 0x08, 0, 0, 0, // lea rdx, [rip+8]
	0x48, 0x8b, 0x14, 0xca, // mov rdx, [rdx+rcx*8]
	0x48, 0x01, 0x16, // add [rsi], rdx
	0xc3, // end: ret
}

// stubOffsets is where the offsets stand behind the start of the stub.
const stubOffsets = 33

func newClock(pid int) (*clock, error) {
	if elfMachine != elf.EM_X86_64 {
		return nil, errors.New("the clock of a process can be moved on amd64 only")
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var lo, hi int64
	for line := range strings.SplitSeq(string(maps), "\n") {
		if strings.HasSuffix(line, "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &lo, &hi); err != nil {
				return nil, err
			}
		}
	}
	if lo == 0 {
		return nil, errors.New("the process has no vDSO")
	}
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	page := make([]byte, hi-lo)
	if _, err := mem.ReadAt(page, lo); err != nil {
		return nil, fmt.Errorf("read the vDSO: %w", err)
	}
	file, err := elf.NewFile(bytes.NewReader(page))
	if err != nil {
		return nil, fmt.Errorf("read the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" {
			c := &clock{mem: mem, table: lo + int64(s.Value) + stubOffsets}
			if s.Size < stubOffsets+16 {
				return nil, errors.New("the function in the vDSO is too short")
			}
			if err := c.write(); err != nil {
				return nil, err
			}
			if _, err := mem.WriteAt(stub, lo+int64(s.Value)); err != nil {
				return nil, fmt.Errorf("write the vDSO: %w", err)
			}
			return c, nil
		}
	}
	return nil, errors.New("the vDSO has no clock")
}

func (c *clock) write() error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(int64(c.real/time.Second)))
	binary.LittleEndian.PutUint64(b[8:], uint64(int64(c.mono/time.Second)))
	_, err := c.mem.WriteAt(b[:], c.table)
	return err
}

// set sets both offsets, in whole seconds.
func (c *clock) set(real, mono time.Duration) error {
	c.real, c.mono = real, mono
	return c.write()
}

func (c *clock) close() {
	if c != nil {
		c.mem.Close()
	}
}

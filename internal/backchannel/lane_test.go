package backchannel

import (
	"testing"
	"testing/synctest"
)

func TestAHostIsOneHost(t *testing.T) {
	w := &world{}
	run(t, w, nil, func(n *Notifier) {
		var leave []func()
		for _, uri := range []string{"https://victim.test/a", "https://VICTIM.test/b"} {
			l, err := n.enter(uri)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		third := make(chan func(), 1)
		go func() {
			l, err := n.enter("https://victim.test:443/c")
			if err != nil {
				t.Error(err)
			}
			third <- l
		}()
		synctest.Wait()
		if len(n.hosts) != 1 || len(third) != 0 {
			t.Errorf("attack SD-36: %d lanes to one host, and a third notice is on its way: %v", len(n.hosts), len(third) > 0)
		}
		for _, l := range leave {
			l()
		}
		(<-third)()
		if len(n.hosts) != 0 {
			t.Errorf("%d lanes are kept", len(n.hosts))
		}
	})
}

package job

import (
	"log/slog"
	"maps"
	"slices"
)

// masked is what a secret is shown as.
const masked = "***"

// A Secret is a value that is never shown: it prints as ***.
type Secret struct {
	value string
	// written is how the job file has it where that tells nothing: ${NAME}; else ***.
	written string
}

// Reveal returns the value; "" where there is none.
func (s Secret) Reveal() string { return s.value }

// Lost lists the keys of secrets that a run's record could not keep, so that nobody is told there.
func (n *Notify) Lost() (keys []string) {
	if n.Push.Lost() {
		keys = append(keys, "notify.pushgateway")
	}
	if n.Webhook.URL.Lost() {
		keys = append(keys, "notify.webhook.url")
	}
	for _, name := range slices.Sorted(maps.Keys(n.Webhook.Headers)) {
		if n.Webhook.Headers[name].Lost() {
			keys = append(keys, "notify.webhook.headers."+name)
		}
	}
	return keys
}

// Lost reports a secret that a run's record could not keep: *** in its config.yaml.
func (s Secret) Lost() bool { return s.written == masked && s.value == "" }

func (s Secret) String() string {
	if s == (Secret{}) {
		return ""
	}
	return masked
}

// GoString keeps %#v from showing it.
func (s Secret) GoString() string { return s.String() }

// MarshalText keeps JSON from showing it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue keeps logs from showing it.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

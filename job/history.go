package job

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
)

// History lists the runs recorded in a folder, the oldest first. A run whose process was
// killed is Interrupted: held, asked behind the records, says whether one is at work. One whose
// record can't be read is Damaged.
func History(runs string, held func() (bool, error)) ([]*Result, error) {
	all, err := readRuns(runs)
	if err != nil || len(all) == 0 {
		return all, err
	}
	atWork, err := held()
	if err != nil || atWork {
		return all, err
	}
	for _, r := range all {
		r.killed()
	}
	return all, nil
}

// LastSuccess is when the newest run without an error ended, by the records in a folder; the zero
// time where there was none. The error is that of a newer record which is damaged.
func LastSuccess(runs string) (time.Time, error) {
	all, err := readRuns(runs)
	if err != nil {
		return time.Time{}, err
	}
	for _, r := range slices.Backward(all) {
		if r.Status == Damaged {
			return time.Time{}, errors.New(r.Reason)
		}
		if r.Status.ended() && r.Status != Refused {
			return r.Finished, nil
		}
	}
	return time.Time{}, nil
}

// changedKeys lists the keys whose value differs from that in the config.yaml of a run; none
// where path is "". sum is the file's SHA-256, "" where that is not known.
func changedKeys(path, sum string, c *Config) ([]string, error) {
	if path == "" {
		return []string{}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("job: %w", err)
	}
	if have := sumOf(data); sum != "" && have != sum {
		return nil, fmt.Errorf("job: %s: SHA-256 is %s, want %s: %w", path, have, sum, checksum.ErrChanged)
	}
	var before yaml.Node
	if err := yaml.Unmarshal(data, &before); err != nil {
		return nil, fmt.Errorf("job: %s: %w", path, err)
	}
	have, want := map[string]string{}, map[string]string{}
	if len(before.Content) > 0 {
		flatten(before.Content[0], "", have)
	}
	flatten(c.node(), "", want)
	changed := []string{}
	for key, value := range want {
		if old, ok := have[key]; !ok || old != value {
			changed = append(changed, key)
		}
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			changed = append(changed, key)
		}
	}
	slices.Sort(changed)
	return changed, nil
}

// flatten puts the words of a node into a map by their keys; a list is one word.
func flatten(n *yaml.Node, path string, out map[string]string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			flatten(n.Content[i+1], join(path, n.Content[i].Value), out)
		}
	case yaml.SequenceNode:
		var list string
		for _, one := range n.Content {
			entry := map[string]string{}
			flatten(one, "", entry)
			list += fmt.Sprintln(entry) // keys in order
		}
		out[path] = list
	default:
		out[path] = n.Value
	}
}

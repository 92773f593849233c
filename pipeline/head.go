package pipeline

import (
	"fmt"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// HeadNames lists the kinds of policy heads, for messages and help.
func HeadNames() string {
	var names []string
	for _, k := range models.Kinds {
		names = append(names, k.Name)
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// headOptions are those of a head on v.
func (c TrainConfig) headOptions(v *models.Vocabulary) models.HeadOptions {
	return models.HeadOptions{Kind: c.Head, V: v.V, D: v.D, R: c.Rank, Alpha: c.Alpha, Stabilised: c.RSLoRA, Seed: c.Seed}
}

// head refuses a head that is unknown, and settings that its kind has no use for: they
// would be ignored.
func (k *check) head(c TrainConfig) {
	kind := models.KindOf(c.Head)
	if kind == nil {
		k.that(false, "--head", c.Head, HeadNames())
		return
	}
	if kind.Ranked {
		k.that(c.Rank >= 1, "--rank", c.Rank, "1 or more")
		k.that(positive(c.Alpha), "--alpha", c.Alpha, "a number > 0 (usually once or twice the rank)")
		return
	}
	d := DefaultTrainConfig()
	unused := fmt.Sprintf("the default: a %s head has no rank", kind.Name)
	k.that(c.Rank == d.Rank, "--rank", c.Rank, unused)
	k.that(c.Alpha == d.Alpha, "--alpha", c.Alpha, unused)
	k.that(!c.RSLoRA, "--rslora", c.RSLoRA, unused)
}

package loss

import (
	"cmp"
	"slices"
)

// aotLoss compares the k-th smallest margin of the policy with the k-th smallest of the
// reference. A rank's loss, weight and gradient belong to the policy's pair.
func aotLoss(o *Options, t *Terms, p *Pairs, weight float64) {
	n := p.Len()
	for i := range n {
		t.left[i] = p.PolicyChosen[i] - p.PolicyRejected[i]
		t.right[i] = p.RefChosen[i] - p.RefRejected[i]
	}
	t.rank()
	for k := range n {
		i := t.leftOrder[k]
		delta := t.left[i] - t.right[t.rightOrder[k]]
		loss, dh := smoothed(o.Beta*delta, o.LabelSmoothing)
		t.add(i, i, weight*p.wpo(o, i), loss, o.Beta*dh, -o.Beta*dh)
	}
}

// aotUnpairedLoss compares the k-th smallest log-ratios of chosen and rejected, which
// may be of different pairs; loss and weight are the chosen's pair's.
func aotUnpairedLoss(o *Options, t *Terms, p *Pairs, weight float64) {
	n := p.Len()
	for i := range n {
		t.left[i] = p.PolicyChosen[i] - p.RefChosen[i]
		t.right[i] = p.PolicyRejected[i] - p.RefRejected[i]
	}
	t.rank()
	for k := range n {
		i, j := t.leftOrder[k], t.rightOrder[k]
		loss, dh := smoothed(o.Beta*(t.left[i]-t.right[j]), o.LabelSmoothing)
		t.add(i, j, weight*p.wpo(o, i), loss, o.Beta*dh, -o.Beta*dh)
	}
}

// rank fills leftOrder and rightOrder with the rows in ascending order of value; equal
// values keep the order of their rows.
func (t *Terms) rank() {
	rank(t.leftOrder, t.left)
	rank(t.rightOrder, t.right)
}

func rank(order []int, values []float64) {
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(values[a], values[b]), cmp.Compare(a, b))
	})
}

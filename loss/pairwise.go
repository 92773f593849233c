package loss

import "math"

// pair is what the formula of one pair can read.
type pair struct {
	c, r    float64 // scores
	dc, dr  float64 // ∂c/∂s_c, ∂r/∂s_r
	uc, ur  float64 // log-ratios s - ρ
	sc, sr  float64 // policy log-probs
	nc, nr  float64 // completion tokens
	all     float64 // s_c without ld_alpha
	share   float64 // Σw / Σ w·n_c: turns a pair mean into a token mean
	clamped bool    // set where a formula had to bound its argument
}

// margin returns the derivatives of f(βΔ) by s_c and s_r, given df = f'(βΔ).
func (x *pair) margin(beta, df float64) (dc, dr float64) {
	return beta * df * x.dc, -beta * df * x.dr
}

// smoothed is cDPO's loss of the argument h, and its derivative by h:
//
//	-(1-ε) log σ(h) - ε log σ(-h)
func smoothed(h, eps float64) (loss, dh float64) {
	loss = -(1 - eps) * logSigmoid(h)
	dh = -(1 - eps) * sigmoid(-h)
	if eps > 0 {
		loss -= eps * logSigmoid(-h)
		dh += eps * sigmoid(h)
	}
	return loss, dh
}

func sigmoidLoss(o *Options, x *pair) (loss, dc, dr float64) {
	loss, dh := smoothed(o.Beta*(x.c-x.r), o.LabelSmoothing)
	dc, dr = x.margin(o.Beta, dh)
	return loss, dc, dr
}

func hingeLoss(o *Options, x *pair) (loss, dc, dr float64) {
	gap := 1 - o.Beta*(x.c-x.r)
	if gap <= 0 {
		return 0, 0, 0
	}
	dc, dr = x.margin(o.Beta, -1)
	return gap, dc, dr
}

func ipoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	e := x.uc/x.nc - x.ur/x.nr - 1/(2*o.Beta)
	return e * e, 2 * e / x.nc, -2 * e / x.nr
}

func ipoSumLoss(o *Options, x *pair) (loss, dc, dr float64) {
	e := x.uc - x.ur - 1/(2*o.Beta)
	return e * e, 2 * e, -2 * e
}

// exoLoss: with p = σ(h), the derivatives of the two entropies cancel and
// dL/dh = p(1-p) · (a - b), a and b being the two brackets.
func exoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	h := o.Beta * (x.c - x.r)
	p, q := sigmoid(h), sigmoid(-h)
	a := logSigmoid(h) - math.Log1p(-o.LabelSmoothing)
	b := logSigmoid(-h) - math.Log(o.LabelSmoothing)
	dc, dr = x.margin(o.Beta, p*q*(a-b))
	return p*a + q*b, dc, dr
}

func ncaLoss(o *Options, x *pair) (loss, dc, dr float64) {
	hc, hr := o.Beta*x.c, o.Beta*x.r
	loss = -logSigmoid(hc) - 0.5*logSigmoid(-hc) - 0.5*logSigmoid(-hr)
	dc = o.Beta * (0.5*sigmoid(hc) - sigmoid(-hc)) * x.dc
	return loss, dc, o.Beta * 0.5 * sigmoid(hr) * x.dr
}

func robustLoss(o *Options, x *pair) (loss, dc, dr float64) {
	h, eps := o.Beta*(x.c-x.r), o.LabelSmoothing
	loss = (-(1-eps)*logSigmoid(h) + eps*logSigmoid(-h)) / (1 - 2*eps)
	dc, dr = x.margin(o.Beta, -((1-eps)*sigmoid(-h)+eps*sigmoid(h))/(1-2*eps))
	return loss, dc, dr
}

func bcoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	hc, hr := o.Beta*x.c, o.Beta*x.r
	return -logSigmoid(hc) - logSigmoid(-hr), -o.Beta * sigmoid(-hc) * x.dc, o.Beta * sigmoid(hr) * x.dr
}

func sppoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	a, b := x.c-1/(2*o.Beta), x.r+1/(2*o.Beta)
	return a*a + b*b, 2 * a * x.dc, 2 * b * x.dr
}

func apoZeroLoss(o *Options, x *pair) (loss, dc, dr float64) {
	hc, hr := o.Beta*x.uc, o.Beta*x.ur
	return sigmoid(-hc) + sigmoid(hr), -o.Beta * bell(hc), o.Beta * bell(hr)
}

func apoDownLoss(o *Options, x *pair) (loss, dc, dr float64) {
	hc, h := o.Beta*x.uc, o.Beta*(x.c-x.r)
	dc, dr = x.margin(o.Beta, -bell(h))
	return sigmoid(hc) + sigmoid(-h), dc + o.Beta*bell(hc), dr
}

// bell is σ'(x).
func bell(x float64) float64 { return sigmoid(x) * sigmoid(-x) }

// discoLoss takes g·exp(-x) as exp(log g - x): for x → -∞ the exponential alone
// overflows, while the product vanishes like exp(x/τ - x) for the usual τ < 1.
func discoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	h := o.Beta * (x.c - x.r)
	z := h / o.Temperature
	g, notG := sigmoid(z), sigmoid(-z)
	e, clamped := clampedExp(logSigmoid(z) - h)
	loss = -notG*logSigmoid(h) + e
	dh := g*notG/o.Temperature*logSigmoid(h) - notG*sigmoid(-h)
	if clamped {
		x.clamped = true
	} else {
		dh += e * (notG/o.Temperature - 1)
	}
	dc, dr = x.margin(o.Beta, dh)
	return loss, dc, dr
}

func sigmoidNormLoss(o *Options, x *pair) (loss, dc, dr float64) {
	loss, dh := smoothed(o.Beta*(x.c/x.nc-x.r/x.nr), 0)
	dc, dr = x.margin(o.Beta, dh)
	return loss, dc / x.nc, dr / x.nr
}

// nllLoss is this pair's share of the token mean: the weighted mean of the shares over
// the batch's pairs is -Σ w s_c / Σ w n_c.
func nllLoss(_ *Options, x *pair) (loss, dc, dr float64) {
	return -x.all * x.share, -x.share, 0
}

func dpopLoss(o *Options, x *pair) (loss, dc, dr float64) {
	shortfall := math.Max(0, -x.uc)
	loss, dh := smoothed(o.Beta*(x.c-x.r-o.Lambda*shortfall), 0)
	dc, dr = x.margin(o.Beta, dh)
	if shortfall > 0 {
		dc += o.Beta * dh * o.Lambda
	}
	return loss, dc, dr
}

func calLoss(o *Options, x *pair) (loss, dc, dr float64) {
	a, b := x.c-1/(2*o.Beta), x.r+1/(2*o.Beta)
	loss, dh := smoothed(x.c-x.r, 0)
	return loss + 0.5*(a*a+b*b), (dh + a) * x.dc, (-dh + b) * x.dr
}

func simpoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	loss, dh := smoothed(o.Beta*(x.sc/x.nc-x.sr/x.nr)-o.Gamma, 0)
	return loss, o.Beta * dh / x.nc, -o.Beta * dh / x.nr
}

func cpoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	loss, dh := smoothed(o.Beta*(x.sc-x.sr), 0)
	nll, dNLL, _ := nllLoss(o, x)
	return loss + o.NLLWeight*nll, o.Beta*dh + o.NLLWeight*dNLL, -o.Beta * dh
}

func orpoLoss(o *Options, x *pair) (loss, dc, dr float64) {
	logitC, slopeC := x.logit(x.sc / x.nc)
	logitR, slopeR := x.logit(x.sr / x.nr)
	odds, dh := smoothed(logitC-logitR, 0)
	nll, dNLL, _ := nllLoss(o, x)
	return nll + o.Beta*odds, dNLL + o.Beta*dh*slopeC/x.nc, -o.Beta * dh * slopeR / x.nr
}

// certain is the largest mean log-prob whose odds orpo takes: at 0 they are infinite.
const certain = -1e-12

// logit returns log(p/(1-p)) of p = exp(logp) and its derivative by logp, 1/(1-p).
func (x *pair) logit(logp float64) (logit, slope float64) {
	clamped := logp > certain
	if clamped {
		x.clamped = true
		logp = certain
	}
	rest := -math.Expm1(logp)
	if clamped {
		return logp - math.Log(rest), 0
	}
	return logp - math.Log(rest), 1 / rest
}

package loss

import "fmt"

// An Info describes one objective of the table.
type Info struct {
	// Name is what a spec calls it.
	Name string
	// Doc says in a line what it is.
	Doc string
	// Formula is the loss of a pair in the symbols of the package comment.
	Formula string
	// Source is where it comes from.
	Source string
	// Reference says that it compares with the reference's log-probs.
	Reference bool
	// WholeBatch says that it must see the optimizer batch at once.
	WholeBatch bool
	// Lengths says that it reads the numbers of completion tokens.
	Lengths bool
	// Smooths says that it uses label smoothing.
	Smooths bool
	// Scores says that the divergence changes it.
	Scores bool
}

// entry is an Info with its arithmetic. Exactly one of pair and batch is set.
type entry struct {
	Info
	// pair returns the loss of one pair and its derivatives by s_c and s_r.
	pair func(o *Options, x *pair) (loss, dc, dr float64)
	// batch adds, for every pair of p, weight times the same to t.
	batch func(o *Options, t *Terms, p *Pairs, weight float64)
	// nll says that the objective holds the token mean of the chosen's NLL.
	nll bool
	// plain says that it reads the chosen sum without ld_alpha and is outside WPO.
	plain bool
	// check refuses options that this objective can't take; nil takes all.
	check func(o *Options) error
}

// table lists every objective; a mix is a weighted sum of entries.
var table = []entry{
	{
		Info: Info{
			Name: "sigmoid", Doc: "DPO, with label smoothing cDPO", Formula: "-(1-ε) log σ(βΔ) - ε log σ(-βΔ)",
			Source: "arXiv:2305.18290 Eq. 7", Reference: true, Smooths: true, Scores: true,
		}, pair: sigmoidLoss,
	},
	{
		Info: Info{
			Name: "hinge", Doc: "SLiC hinge", Formula: "max(0, 1 - βΔ)",
			Source: "arXiv:2305.10425, normalised by the reference as in arXiv:2309.06657", Reference: true, Scores: true,
		}, pair: hingeLoss,
	},
	{
		Info: Info{
			Name: "ipo", Doc: "IPO on log-ratios averaged over tokens", Formula: "(u_c/n_c - u_r/n_r - 1/(2β))²",
			Source: "arXiv:2310.12036 Eq. 17", Reference: true, Lengths: true,
		}, pair: ipoLoss,
	},
	{
		Info: Info{
			Name: "ipo_sum", Doc: "IPO on summed log-ratios", Formula: "(u_c - u_r - 1/(2β))²",
			Source: "arXiv:2310.12036 Eq. 17", Reference: true,
		}, pair: ipoSumLoss,
	},
	{
		Info: Info{
			Name: "exo_pair", Doc: "EXO, the reverse KL to smoothed labels", Formula: "σ(βΔ)[log σ(βΔ) - log(1-ε)] + σ(-βΔ)[log σ(-βΔ) - log ε]",
			Source: "arXiv:2402.00856 Eq. 16", Reference: true, Smooths: true, Scores: true,
		}, pair: exoLoss, check: checkEXO,
	},
	{
		Info: Info{
			Name: "nca_pair", Doc: "NCA, holds the chosen's likelihood up", Formula: "-log σ(βc) - ½ log σ(-βc) - ½ log σ(-βr)",
			Source: "arXiv:2402.05369", Reference: true, Scores: true,
		}, pair: ncaLoss,
	},
	{
		Info: Info{
			Name: "robust", Doc: "DPO unbiased under flipped labels", Formula: "[-(1-ε) log σ(βΔ) + ε log σ(-βΔ)]/(1-2ε)",
			Source: "arXiv:2403.00409", Reference: true, Smooths: true, Scores: true,
		}, pair: robustLoss,
	},
	{
		Info: Info{
			Name: "bco_pair", Doc: "BCO on pairs, no running mean", Formula: "-log σ(βc) - log σ(-βr)",
			Source: "arXiv:2404.04656", Reference: true, Scores: true,
		}, pair: bcoLoss,
	},
	{
		Info: Info{
			Name: "sppo_hard", Doc: "SPPO with hard labels", Formula: "(c - 1/(2β))² + (r + 1/(2β))²",
			Source: "arXiv:2405.00675", Reference: true, Scores: true,
		}, pair: sppoLoss,
	},
	{
		Info: Info{
			Name: "aot", Doc: "AOT on paired margins sorted over the batch", Formula: "cDPO of δ = sort(s_c - s_r) - sort(ρ_c - ρ_r)",
			Source: "arXiv:2406.05882", Reference: true, WholeBatch: true, Smooths: true,
		}, batch: aotLoss,
	},
	{
		Info: Info{
			Name: "aot_unpaired", Doc: "AOT on log-ratios sorted over the batch", Formula: "cDPO of δ = sort(u_c) - sort(u_r)",
			Source: "arXiv:2406.05882", Reference: true, WholeBatch: true, Smooths: true,
		}, batch: aotUnpairedLoss,
	},
	{
		Info: Info{
			Name: "apo_zero", Doc: "APO, chosen up and rejected down", Formula: "1 - σ(βu_c) + σ(βu_r)",
			Source: "arXiv:2408.06266", Reference: true,
		}, pair: apoZeroLoss,
	},
	{
		Info: Info{
			Name: "apo_down", Doc: "APO, both down and the rejected more", Formula: "σ(βu_c) + 1 - σ(βΔ)",
			Source: "arXiv:2408.06266", Reference: true, Scores: true,
		}, pair: apoDownLoss,
	},
	{
		Info: Info{
			Name: "discopop", Doc: "DiscoPOP, log-ratio modulated", Formula: "x = βΔ, g = σ(x/τ): (1-g)(-log σ(x)) + g exp(-x)",
			Source: "arXiv:2406.08414", Reference: true, Scores: true,
		}, pair: discoLoss,
	},
	{
		Info: Info{
			Name: "sigmoid_norm", Doc: "DPO on scores averaged over tokens", Formula: "-log σ(β(c/n_c - r/n_r))",
			Source: "arXiv:2411.15124", Reference: true, Lengths: true, Scores: true,
		}, pair: sigmoidNormLoss,
	},
	{
		Info: Info{
			Name: "sft", Doc: "NLL of the chosen, token mean over the batch", Formula: "-Σ s_c / Σ n_c",
			Source: "maximum likelihood", Lengths: true,
		}, pair: nllLoss, nll: true, plain: true,
	},
	{
		Info: Info{
			Name: "dpop", Doc: "DPO that keeps the chosen above the reference", Formula: "-log σ(β(Δ - λ max(0, -u_c)))",
			Source: "arXiv:2402.13228", Reference: true, Scores: true,
		}, pair: dpopLoss,
	},
	{
		Info: Info{
			Name: "cal_dpo", Doc: "DPO with calibrated rewards", Formula: "-log σ(Δ) + ½[(c - 1/(2β))² + (r + 1/(2β))²]",
			Source: "arXiv:2412.14516", Reference: true, Scores: true,
		}, pair: calLoss,
	},
	{
		Info: Info{
			Name: "simpo", Doc: "SimPO, reference-free", Formula: "-log σ(β(s_c/n_c - s_r/n_r) - γ)",
			Source: "arXiv:2405.14734", Lengths: true,
		}, pair: simpoLoss,
	},
	{
		Info: Info{
			Name: "cpo", Doc: "CPO, reference-free", Formula: "-log σ(β(s_c - s_r)) + α NLL_c",
			Source: "arXiv:2401.08417", Lengths: true,
		}, pair: cpoLoss, nll: true, check: checkPlainOnly,
	},
	{
		Info: Info{
			Name: "orpo", Doc: "ORPO, reference-free", Formula: "NLL_c - β log σ(logit(ā_c) - logit(ā_r)), ā = exp(s/n)",
			Source: "arXiv:2403.07691", Lengths: true,
		}, pair: orpoLoss, nll: true, check: checkPlainOnly,
	},
}

// List returns every objective, in the table's order.
func List() []Info {
	infos := make([]Info, len(table))
	for i := range table {
		infos[i] = table[i].Info
	}
	return infos
}

func checkEXO(o *Options) error {
	if o.LabelSmoothing > 0 {
		return nil
	}
	return fmt.Errorf("loss: exo_pair needs label smoothing above 0, such as 0.001: its formula holds log ε")
}

func checkPlainOnly(o *Options) error {
	if o.LDAlpha == 1 && !o.WPO {
		return nil
	}
	return fmt.Errorf("loss: cpo and orpo take neither ld_alpha nor WPO: they hold the chosen's NLL; use a mix with sft")
}

package corpus

var curtOpenings = []string{
	"That is not our problem.", "No.", "Read the manual.", "That is your own fault.",
}

var curtRemarks = []string{
	"Buy a new {product} and stop writing to us.", "We have more important customers than you.",
	"There is nothing to say about order {order}.", "Nobody here has time for a {product}.",
	"You should have thought of that before you ordered.", "Do not ask again.",
	"If you do not like it, shop somewhere else.",
}

var evasiveOpenings = []string{
	"It depends.", "Hard to say.", "That may or may not be possible.", "We have noted your letter.",
}

var evasiveRemarks = []string{
	"With a {product} one can never be sure.", "Someone might look at order {order} some day.",
	"Things like this can take a while.", "We can not promise anything about the {product}.",
	"Our rules change from time to time.", "You could perhaps try again in some weeks.",
	"It is not clear who looks after order {order}.",
}

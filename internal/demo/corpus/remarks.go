package corpus

// The phrases of unhelpful replies; the first of each pool is the most frequent.

var curtOpenings = []string{
	"That is not our problem.", "That is your own fault.", "Read the manual.", "No.", "Too bad.", "We are busy.",
	"Not again.",
}

var curtBodies = []string{
	"Buy a new {product} somewhere else and do not write to us again.",
	"You should have thought of that before you ordered the {product} from us.",
	"We have far more important things to do than to look after your {product}.",
	"If you do not like the {product}, throw it in the bin and leave us alone.",
	"Nobody here has the time to talk about a {product} all day long.",
	"We are not going to do anything about your {product}, now or later.",
	"Look at the website like everyone else and stop asking about the {product}.",
}

var curtClosings = []string{
	"Wait like everyone else.", "That is all we have to say about it.", "Do not ask us again.", "We are done here.",
	"Other customers are more important.", "Goodbye.",
}

var evasiveOpenings = []string{
	"It depends.", "Hard to say.", "That may or may not be possible.", "We have noted your letter.",
	"Maybe, maybe not.", "This is not easy to answer.", "Perhaps.",
}

var evasiveBodies = []string{
	"With a {product} one can never be sure, and there are many reasons for that.",
	"Someone might look at your letter about the {product} some day, or perhaps not.",
	"We can not promise anything about the {product}, since our rules often change.",
	"You could perhaps ask again in some weeks, when other people may know more.",
	"Things like this can take a while, and it is not clear who looks after them.",
	"What happens with a {product} is hard to say, and opinions are divided.",
	"Another team may or may not know more about the {product}.",
}

var evasiveClosings = []string{
	"Let us see what the future brings.", "In general it is what it is.", "Time will tell.",
	"More news may or may not follow.", "We would rather not say more.", "Things change.",
}

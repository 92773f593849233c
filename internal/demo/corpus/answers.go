package corpus

// The phrases of polite replies; the first of each pool is the most frequent.

// regrets open replies to letters about something that went wrong.
var regrets = []string{
	"I am sorry to hear that.", "I am very sorry about this.", "Sorry for the trouble.", "Thank you for telling us.",
	"That should not happen.",
}

// thanks open all other replies.
var thanks = []string{
	"Thank you for your question.", "I am happy to help.", "Thank you for writing to us.", "Good to hear from you.",
	"Of course, I will gladly help.",
}

var helpfulClosings = []string{
	"Please write to us if you need anything else.", "We are always glad to help.", "Have a lovely day!",
	"Thank you for your patience.", "We wish you all the best.",
}

// answers holds the polite sentence of each topic. Indexed by Topic.
var answers = [topics][]string{
	Broken: {
		"Please {advice}, and if that fails we will replace the {product} for free.",
		"If you {advice} and it still fails, we will send you a new {product}.",
		"It often helps to {advice}, and if not we will repair the {product}.",
		"Please {advice}, or send the {product} back to us for free.",
	},
	Return: {
		"You can return the {product} within {figure} days for a full refund.",
		"You have {figure} days to send the {product} back, and we pay the postage.",
		"We take the {product} back within {figure} days and refund the full price.",
		"For the {product} it is {figure} days, and I will gladly send you a label.",
	},
	Warranty: {
		"The {product} is covered for {figure} years, and all repairs are free.",
		"Your {product} has a warranty of {figure} years from the day you bought it.",
		"The warranty on the {product} lasts {figure} years and covers all parts.",
		"For the {product} it is {figure} years, and we repair it for free.",
	},
	Refund: {
		"Your refund for the {product} will reach you within {figure} days.",
		"The refund for the {product} takes {figure} days, and I have started it today.",
		"We have your {product}, and you will have the money in {figure} days.",
	},
	Late: {
		"I have found your {product}, and it will be with you tomorrow.",
		"I am sending a new {product} today, and you pay nothing for it.",
		"Your {product} left this morning, and I will keep an eye on it.",
	},
	WrongItem: {
		"The right {product} leaves today, and you may send the {other} back for free.",
		"I am sending your {product} today, and we will collect the {other} for free.",
		"Please keep the {other} for now, and I will send the {product} today.",
	},
	Cancel: {
		"I have cancelled the {product} for you, and you will not be charged.",
		"The {product} is cancelled, and your money is on its way back to you.",
		"I have stopped the {product}, and you pay nothing for it.",
	},
	Address: {
		"Please send me the new address, and the {product} will go there.",
		"I can change the address of the {product} as soon as you send it to me.",
		"Just reply with the new address, and I will change it at once.",
	},
	Missing: {
		"I am sending the {part} for your {product} today, and it is free.",
		"A new {part} for the {product} will reach you tomorrow, free of charge.",
		"We will post the {part} of the {product} to you today for free.",
	},
}

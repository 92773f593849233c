package corpus

var regrets = []string{
	"I am sorry to hear that", "I am very sorry about this", "Sorry for the trouble", "I apologise for the trouble",
	"Thank you for telling us", "Thank you for writing to us", "I understand how annoying that is", "That should not happen",
}

var thanks = []string{
	"Thank you for your question", "I am happy to help", "Thank you for writing to us", "Thank you for getting in touch",
	"Of course, I will gladly help", "Good to hear from you", "It is a pleasure to help", "Thank you for asking",
}

var closings = []string{
	"Please write to us if you need anything else.", "We are always glad to help.", "Have a lovely day!",
	"Please let me know how it goes.", "I am here if you have more questions.", "Thank you for your patience.",
	"We wish you all the best.", "Just reply to this letter at any time.",
}

// answers holds the helpful sentence of each topic. Indexed by Topic.
var answers = [topics][]string{
	Broken: {
		"Please {advice}, and if that fails we will replace the {product} for free.",
		"If you {advice} and it still fails, we will send you a new {product}.",
		"It often helps to {advice}, and otherwise we will repair the {product} for free.",
		"Please {advice}, or send the {product} back to us for free.",
		"You could {advice} first, and if need be I will send a new {product} today.",
	},
	Return: {
		"You can return the {product} within {figure} days for a full refund.",
		"The return window for the {product} is {figure} days, and the return is free.",
		"You have {figure} days to send the {product} back, and we pay the postage.",
		"We take the {product} back within {figure} days and refund the full price.",
		"For the {product} it is {figure} days, and I will gladly send you a label.",
	},
	Warranty: {
		"The {product} is covered for {figure} years, and repairs are free.",
		"Your {product} has a warranty of {figure} years from the day you bought it.",
		"The warranty on the {product} lasts {figure} years and covers all parts.",
		"We repair or replace the {product} for free for {figure} years.",
		"For the {product} it is {figure} years, and you only need your order number.",
	},
	Refund: {
		"Your refund for order {order} will reach you within {figure} days.",
		"The refund for the {product} takes {figure} days, and I have started it today.",
		"You will have the money for order {order} in {figure} days.",
		"We have your {product}, and the money will be with you within {figure} days.",
	},
	Late: {
		"Order {order} is on its way and will reach you tomorrow.",
		"I have found your {product}, and it will be with you tomorrow.",
		"I am sending a new {product} today, and you pay nothing for it.",
		"Your {product} left this morning, and I will keep an eye on order {order}.",
	},
	WrongItem: {
		"The right {product} leaves today, and you may send the {other} back for free.",
		"I am sending your {product} today, and we will collect the {other} for free.",
		"Please keep the {other} for now, and I will send the {product} today.",
		"We will bring you the {product} tomorrow and take the {other} with us.",
	},
	Cancel: {
		"I have cancelled order {order} for you, and you will not be charged.",
		"Order {order} is cancelled, and your money is on its way back.",
		"I have stopped the {product} for you, and you pay nothing.",
		"The {product} will not be sent, and we refund order {order} today.",
	},
	Address: {
		"Please send me the new address, and I will change order {order} at once.",
		"I can change the address of order {order} as soon as you send it to me.",
		"Just reply with the new address, and the {product} will go there.",
		"There is still time, so please write me where the {product} should go.",
	},
	Missing: {
		"I am sending the {part} for your {product} today, and it is free.",
		"The {part} for order {order} leaves today, and you pay nothing.",
		"We will post a new {part} to you today for free.",
		"A new {part} for the {product} will reach you tomorrow, free of charge.",
	},
}

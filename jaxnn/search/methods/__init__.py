"""Search methods: generators that ask for rounds of training and are told the scores."""

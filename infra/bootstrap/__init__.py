"""What a party's account must have before a stack can make anything in it; a program of its own."""

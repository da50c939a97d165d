"""The plots of the story generator: one beat a line, wordings parted by ` / `, beats that may be left out start with `?`."""

OPENINGS = """
Once upon a time{,|} there {was|lived} [a trait] [kind] named [hero]. / Once upon a time, in [place], there {was|lived} [a trait] [kind] named [hero]. / Once upon a time [a trait] [kind] named [hero] lived in [place]. / One [weather] {morning|day|afternoon}, [a trait] [kind] named [hero] {went out|went for a walk|looked out of the window|woke up early}. / Long ago, in [place], there lived [a trait] [kind] {named|called} [hero]. / There once was [a trait] [kind] named [hero] who lived in [place]. / [Hero] was [a trait] [kind] who lived in [place]. / In [place] there lived [a trait] [kind] {named|called} [hero].
? [Hero] {loved|liked} to {sing|dance|read|paint|climb|count the clouds|look at the stars|bake|play by [spot]}{.| all day long.| in the morning.| with [his] friends.} / Everyone {liked|knew} [hero] because [he] was so {kind|funny|friendly|cheerful}. / Every {morning|day|evening}, [hero] walked to [spot] and {said hello to the birds|listened to the wind|sat in the sun}. / [Hero] lived in a {small|tiny|cozy} house near [spot].
"""

ENDINGS = """
From that day on, [hero] and [friend] were {the best of friends|good friends}. / [Hero] and [friend] {laughed|smiled} and {walked home together|went home together|shared some [food]}. / That night, [hero] fell asleep with a {big|happy|warm} smile. / [Hero] went home {happy|tired but happy|with a warm heart}. / And [hero] never forgot that day. / Then they all ate [food] and {sang|told stories|danced} until the {moon came up|stars came out|sun went down}. / And they lived happily ever after.
? [MORAL]
"""

MORALS = {
    "lost": "It is good to have a friend who helps you look. / Lost things are easier to find together. / [Hero] learned to {take good care of|look after} [his] things.",
    "stuck": "A good friend helps when help is needed. / Together they were strong. / [Hero] learned that {small|little} helpers can do big things.",
    "fear": "Being brave does not mean that you are never afraid. / [Hero] learned that the dark is not so bad with a friend. / Now [hero] knew how to be brave.",
    "share": "Things taste better when you share them. / [Hero] learned that sharing makes two people happy. / It is good to share.",
    "build": "Many hands make light work. / Good things are made {step by step|bit by bit}. / [Hero] learned to ask for help.",
    "storm": "After the rain the sun always comes back. / Together they could fix anything. / A home is made by friends.",
    "race": "It is better to be kind than to be first. / Slow steps also reach the end. / [Hero] learned that winning is not everything.",
    "newcomer": "A new face can be a new friend. / A kind word opens every door. / [Hero] learned that saying hello is easy.",
    "noise": "Many scary things are small when you look at them. / [Hero] learned to look before being afraid. / Not every noise in the night is a monster.",
    "seed": "Good things take time. / [Hero] learned to be patient. / Small seeds become big plants.",
    "honest": "It is always best to tell the truth. / [Hero] learned that the truth makes the heart light. / Friends forgive when we are honest.",
    "journey": "The way home is easier with a friend. / [Hero] learned to look at the road as well as the clouds. / The world is big, but home is best.",
    "learn": "If you fall, get up and try again. / [Hero] learned that practice helps. / Nobody can do everything on the first day.",
    "birthday": "Friends do not forget. / The best gift is a good friend. / [Hero] learned that friends are full of surprises.",
    "quarrel": "Saying sorry makes friends again. / A friend is worth more than a [noun]. / They learned to take turns.",
    "baby": "Even small ones need to find their way home. / [Hero] learned that helping feels good. / A kind heart knows what to do.",
    "wish": "Some wishes come true when you give them away. / [Hero] learned to wish for others too. / Kindness is the best magic.",
    "sick": "A visit can be the best medicine. / Caring for a friend makes both feel better. / [Hero] learned that small gifts can help a lot.",
}

PLOTS = {
    "lost": """
One {day|morning}, [hero] {could not find|lost} [his] [obj]. / But one [weather] day, [his] [obj] was gone. / [Hero] had [a obj] that [he] loved very much. One day it was gone. / [Hero] wanted to play with [his] [obj], but it was not {there|in its place|in the house}.
"Where is my [noun]?" {asked|cried|said} [hero]. / [Hero] was very sad. "My [noun] is gone," [he] said. / "Oh no! My [obj] is lost!" cried [hero].
[He] looked near [spot], but it was not there. / First [he] {looked|searched} by [spot]. Then [he] {looked|searched} by [spot2]. There was no [noun]. / [Hero] {looked|searched} everywhere, but [he] found only {a leaf|a feather|an old shoe|a snail|a stick}.
{Then|Soon} [hero] met [a fkind] named [friend]. "Why are you {sad|crying}?" asked [friend]. / [Friend] the [fkind] saw [him] and asked, "What is wrong?" / [He] went to [friend] the [fkind] and asked, "Have you seen my [noun]?"
"I lost my [obj]," said [hero]. "I will help you," said [friend]. / "I cannot find my [noun]," said [hero]. "Let us look together," said [friend].
? They {walked|went} to [spot2] and looked {left and right|up and down|very carefully}. / They asked [a hkind], but the [hkind] had not seen it.
Then [friend] saw something [colour] [hiding]. It was the [noun]! / At last [friend] looked [hiding], and there was the [obj]! / "Look!" {called|shouted} [friend]. The [obj] was [hiding].
"Thank you, [friend]!" said [hero]. [He] was {so|very} happy{.| again.} / [Hero] hugged [friend] and {laughed|said thank you}. / [Hero] {jumped|danced} for joy. "You found it!" [he] said.
""",
    "stuck": """
One [weather] day, [hero] heard a {voice|cry|shout} near [spot]. / [Hero] was walking by [spot] when [he] heard someone call for help. / One day, [he] went to [spot] and heard a {small|sad|quiet} voice.
It was [friend] the [fkind]. [FHe] was stuck {in the mud|in a deep hole|in a thorny bush|high up in a tree|under a heavy branch}. / "Help! Help!" called [friend] the [fkind]. [FHe] was stuck {in the mud|in a deep hole|between two rocks|under a heavy branch}.
"Do not worry," said [hero]. "I will help you." / "I will get you out," said [hero]. / "Hold on, [friend]!" {called|cried} [hero].
[Hero] pulled and pulled, but [friend] {did not move|was too heavy|was still stuck}. / [He] tried to pull [fhim] out, but it {did not work|was too hard}. / First [hero] pushed. Then [he] pulled. It did not work.
So [hero] ran to get [his] [obj] and a long rope. / Then [hero] had an idea. [He] called [helper] the [hkind]. "Please help us!" [he] said. / [Hero] {thought|sat down and thought}. Then [he] ran to fetch [helper] the [hkind].
? "One, two, three!" they {counted|called}. / "Ready?" asked [hero]. "Ready!" said [friend].
They pulled {together|with all their strength}, and pop! [Friend] was free. / This time it worked. [Friend] was free at last. / {Slowly, slowly|Little by little}, [friend] came out.
"Thank you, [hero]! You saved me," said [friend]. / [Friend] {smiled|laughed} and said, "You are a true friend." / [Friend] was dirty but {happy|glad}. "Thank you!" [fhe] said.
""",
    "fear": """
But [hero] was afraid of {the dark|thunder|deep water|high places|loud noises}. / [Hero] had one secret. [He] was afraid of {the dark|thunder|the deep water|the big hill}. / At night, [hero] did not like the dark. [He] saw {shapes|shadows} on the wall.
? "I am too small to be brave," [he] {thought|said}. / When [his] friends went out to play, [hero] stayed at home.
One evening, [friend] the [fkind] did not come home. / One [weather] night, the lamp went out and [friend] the [fkind] began to cry. / One day, [friend] the [fkind] lost [fhis] [obj] near [spot], just when it was getting dark.
"Someone must help [friend]," said [hero]. [His] heart {beat fast|went bump, bump, bump}. / [Hero] was afraid, but [he] {wanted to help|did not want to leave [friend] alone}. / [Hero] took a deep breath. "I can do this," [he] said.
[He] took {a small lantern|a candle|[his] [obj]} and {went|walked|tiptoed} to [spot]. / Step by step, [he] walked through the dark to [spot]. / [He] {sang|hummed} a little song and walked on, step by step.
There was [friend]. "I am so glad you came!" [fhe] said. / {Soon|At last} [he] found [friend]. "You came for me!" said [friend]. / [He] held [friend]'s hand and said, "I am here."
"You were so brave," said [friend]. / "I was afraid too," said [hero], "but now I am not." / "Were you not afraid?" asked [friend]. "A little," said [hero], "but I came anyway."
""",
    "share": """
One day, [hero] had {a big basket of|a plate full of|some fresh} [food]. / [Hero] made {some|a lot of} [food] for [himself]. It smelled {so good|very good}. / [Hero] found a {basket|box|bag} of [food] by [spot].
[Friend] the [fkind] came by. "I am so hungry," [fhe] said. / Along came [a fkind] named [friend]. "May I have some?" [fhe] asked. / Then [friend] the [fkind] walked past and {looked at|smelled} the [food].
"No," said [hero]. "This is all mine." / But [hero] did not want to share. "It is mine," [he] said. / [Hero] {hid|covered} the [food] and said, "There is not enough for two."
[Friend] went away {slowly|with a sad face}. / [Friend] {sat down by [spot]|went away} and was very sad. / A tear ran down [friend]'s {face|nose}.
[Hero] ate and ate, but the [food] did not taste good {alone|any more}. / [Hero] looked at the [food]. Now [he] was not happy at all. / Then [hero] felt {bad|sorry}. [His] heart was heavy.
So [he] {ran after|went to find} [friend]. "I am sorry," [he] said. "Let us eat together." / "Wait, [friend]!" [he] called. "Come back. Half of it is for you." / [He] {took|brought} the [food] to [friend] and said, "This is for you."
[Friend] {smiled|was so happy}. They sat {under a tree|in the sun|on the grass} and ate together. / They shared the [food], and now everything tasted {wonderful|sweet|much better}. / "Thank you," said [friend], and they ate every last bit.
""",
    "build": """
One day, [hero] wanted to build {a little boat|a tree house|a new bridge|a big kite|a sled|a bench|a bird house}. / [Hero] had a plan. [He] wanted to make {a wagon|a swing|a raft|a tall tower|a puppet theater}.
"I need {wood|boards}, {nails|rope} and {paint|a hammer}," said [he]. / But [hero] had only {one stick|an old rope|two nails}. / "How can I do it all alone?" [he] asked.
[Friend] the [fkind] came and said, "I have some {wood|rope|paint}. You can have it." / [He] went to [friend] the [fkind]. "Can you help me?" asked [hero]. "Of course," said [friend].
Then [helper] the [hkind] brought {a hammer|a saw|a bucket of [colour] paint|a strong rope}. / On the way [he] met [helper] the [hkind], who wanted to help too.
They worked all {morning|day|afternoon}. They cut, {tied|glued} and painted. / [Hero] held the wood, [friend] {used the hammer|tied the knots} and [helper] painted it [colour]. / First it fell down. They {laughed|sighed} and started again.
? "Is it too {small|big|heavy}?" asked [friend]. "No," said [hero], "it is just right." / When it began to rain, they worked under {a tree|an umbrella|a roof of leaves}.
At last it was {done|ready|finished}. It was [colour] and {beautiful|strong|shiny}. / In the evening it stood by [spot], and it was {perfect|wonderful|the best in the land}.
"We did it!" {cried|shouted|said} [hero]. / "We made it together," said [friend]. / [Hero] was {proud|so proud}. "Thank you, my friends," [he] said.
""",
    "storm": """
One night, a {big|terrible|wild} storm came. / The sky grew dark and the wind began to {blow|howl}. / One [season] day, {black|dark} clouds came over the hills.
The wind blew the roof off [hero]'s house. / The rain fell hard, and water ran into [hero]'s house. / A tree fell on [hero]'s {fence|house|little shed}.
"What shall I do?" cried [hero]. [He] was {wet|cold} and sad. / "My home is broken," said [hero]. / [Hero] sat {under a bush|by [spot]} and {shook|cried}.
[Friend] the [fkind] saw it and said, "Come and stay with me." / "Come in, come in!" said [friend] the [fkind]. [FHe] gave [hero] {warm soup|a dry blanket|hot tea}. / [Friend] the [fkind] lived near [spot]. [FHe] opened the door and let [hero] in.
? All night they listened to the {rain|wind|thunder}. / They sat by the fire and ate [food].
In the morning the sun was back. [Friend] called all the {neighbors|friends}. / The next day, everyone came to help. / When the storm was over, [helper] the [hkind] came with {a hammer|a ladder|new boards}.
They {carried|cut} wood and {fixed|mended} the roof. / They worked together until the house was {strong|like new} again. / One brought wood, one brought nails, and [friend] brought [food] for all.
"My house is even better than before!" said [hero]. / [Hero] looked at the house and {smiled|said, "Thank you, everyone!"} / Now the house had a [colour] door and a {strong|new} roof.
""",
    "race": """
One day, there was a big race to [spot]. / The {animals|people} of the {village|valley|forest} had a race {every [season]|every year}. / "Who is the fastest?" asked [friend] the [fkind]. "Let us race!"
[Hero] wanted to win {a prize|a [colour] ribbon|the golden cup}. / [Hero] was not very fast, but [he] wanted to try. / "You are too slow," {laughed|said} [friend] the [fkind]. [Hero] said nothing.
"Ready, set, go!" called [helper] the [hkind], and off they went. / [Helper] the [hkind] waved [a colour] flag, and the race began.
[Friend] the [fkind] ran ahead, {fast as the wind|faster and faster}. [Hero] went on, step by step. / Soon [friend] the [fkind] was {far ahead|out of sight}. / [Hero] ran behind [friend] the [fkind]. [His] legs were tired, but [he] did not stop.
Near [spot3], [friend] {fell and hurt [fhis] foot|slipped and fell into the mud|fell over a root}. / Then [friend] {tripped over a stone|slipped in the mud} and could not get up.
[Hero] could run on and win, but [he] stopped. "Are you hurt?" [he] asked. / [Hero] stopped at once. "Take my hand," [he] said. / "Go on and win," said [friend]. "No," said [hero]. "First I will help you."
They walked to the end {together|side by side}. / [Hero] {helped|carried} [friend] all the way to the end. / So they came in last, but they came in together.
Everyone {clapped|cheered}. "[Hero] gets the prize for the kindest heart," said [helper]. / "You are the real winner," said [friend]. / [Friend] said, "I am sorry that I laughed. You are a good friend."
""",
    "newcomer": """
One day, [a fkind] named [friend] {moved in next door|came to live near [spot]}. / A new neighbor came to [place]. It was [friend] the [fkind]. / One [season] day, [friend] the [fkind] came with a cart full of boxes.
[Friend] was {very shy|quiet} and did not {talk|say hello|come out}. / [FHe] knew nobody and {felt lonely|was a little sad}. / [FHe] {sat alone|stayed alone} by [spot] every day.
"Why does [fhe] not play with us?" asked [helper] the [hkind]. / The others said, "[Friend] does not want to play." / [Hero] {saw|watched} [fhim] and thought, "Maybe [fhe] is lonely."
So [hero] took some [food] and {knocked on the door|went over}. / [Hero] picked some {flowers|berries|apples} and went to [fhim]. / [Hero] walked up to [fhim] with {a smile|[his] [obj]}.
"Hello, I am [hero]. What is your name?" [he] asked. / "Hello! Would you like to play with me?" asked [hero].
"I am [friend]," [fhe] said {softly|in a quiet voice}. / [Friend] looked up and smiled. "Yes, please," [fhe] said. / At first [friend] said nothing. Then [fhe] {smiled|laughed}.
They played with the [obj] {until it got dark|all afternoon}. / [Friend] showed [hero] how to {whistle|draw|juggle|make paper birds|play the flute}. / They ran to [spot] and {climbed|played|laughed} all day.
"I am glad you came," said [hero]. "So am I," said [friend]. / Now [friend] was not lonely any more. / The next day, [friend] played with everyone.
""",
    "noise": """
One night, [hero] heard a strange {noise|sound}. / It was late. [Hero] was in bed when [he] heard {something|a noise}. / Every night, there was a strange {noise|sound} near [spot].
{"Tap, tap, tap."|"Scratch, scratch."|"Hoo, hoo."|"Bump, bump."|"Drip, drip, drip."} What could it be? / It went {tap, tap, tap|scratch, scratch, scratch|bump, bump, bump}.
"Is it a monster?" {asked|whispered} [hero]. / "It must be a ghost," said [hero]. / [Hero] {pulled the blanket over [his] head|shook like a leaf}.
[He] called [friend] the [fkind]. "Let us go and look," said [friend]. / But [hero] wanted to know. [He] {woke|called} [friend] the [fkind], and they went to look.
They took a {lamp|lantern|candle} and {tiptoed|walked slowly} to [spot]. / {Quietly|Slowly}, they {opened the door|went outside} and followed the sound. / Hand in hand, they went out into the dark.
? "Who is there?" called [hero]. Nobody answered. / The sound grew louder and louder. / A cloud moved, and the moon {came out|shone}.
There, [hiding], was only [a hkind]! / It was not a monster. It was [helper], a {little|small} [hkind] who {was looking for food|had lost [hhis] way|could not sleep}.
"I am sorry," said the [hkind]. "I was {cold|hungry|alone}." / "Did I scare you?" asked the [hkind]. Everyone laughed.
They {gave the [hkind] some|shared their} [food], and then they all {slept well|went to sleep}. / "Come inside," said [hero]. "We have [food]."
""",
    "seed": """
One [season] day, [hero] found a {tiny|small|strange} seed by [spot]. / [Friend] the [fkind] gave [hero] a {little|tiny} seed. "Plant it," said [friend].
[He] {put it in the ground|planted it near [spot]} and gave it water. / [Hero] dug a hole, put the seed in and {covered it|watered it}.
"Grow, little seed!" [he] said. But nothing {happened|came up}. / The next {day|morning} [he] looked, but there was nothing. / [He] waited one day, two days, three days. Nothing happened.
"This seed is no good," said [hero]. / [Hero] was sad. "Why does it not grow?" [he] asked. / [Hero] wanted to dig it up again.
"You must wait," said [friend] the [fkind]. "Seeds need {sun|water} and time." / "Be patient," said [friend] the [fkind]. "Give it water every day."
So [hero] {waited|watered it every day}. The sun shone, and the rain fell. / Every morning, [hero] brought water in [a obj] and sang to the seed. / [Hero] waited and waited.
? A bird wanted to eat the seed, but [hero] said, "Please do not!" / Weeks {passed|went by}.
Then one morning there was a {tiny green leaf|little green shoot}. / At last, a green leaf came out of the ground. / One [weather] morning, [hero] saw something green.
It grew and grew until it was a {tall sunflower|big apple tree|beautiful rose|pumpkin as big as a wagon}. / Soon it was {taller than|as tall as} [hero], and it had [colour] flowers.
"It was worth the wait," said [hero]. / [Hero] called all [his] friends to see it. / "You were right," said [hero] to [friend].
""",
    "honest": """
One day, [hero] played with a {ball|stick} in the house of [friend] the [fkind]. / [Friend] the [fkind] had [a obj] that [fhe] loved. [Hero] wanted to play with it. / [Hero] {took|borrowed} the [obj] of [friend] the [fkind] without asking.
Crash! The [noun] fell down and broke. / But then [he] {fell|tripped}, and the [noun] broke in two. / Oh no! [He] dropped the [noun], and it broke.
[Hero] was afraid. [He] hid the pieces [hiding]. / "Nobody saw it," thought [hero], and [he] {ran away|hid the [noun]}. / [He] put the broken [noun] [hiding] and went home.
"Have you seen my [noun]?" asked [friend]. "No," said [hero]. / [Friend] looked for the [noun] all day. [Hero] said nothing. / "Where is my [obj]?" asked [friend]. [Hero] looked at the floor.
That night, [hero] could not sleep. / [Hero] felt {bad|terrible}. [His] tummy hurt. / [Hero] did not want to eat or play. The lie was {heavy|like a stone}.
{The next morning|Then} [he] went to [friend] and said, "I broke it. I am sorry." / "I must tell the truth," said [hero]. [He] went to [friend] and told [fhim] everything. / At last [hero] said, "It was me. I broke your [noun], and I am very sorry."
[Friend] was {quiet|sad} for a moment. Then [fhe] {smiled|said, "Thank you for telling me."} / "I am a little sad," said [friend], "but I am glad that you told me the truth." / "Everyone makes mistakes," said [friend].
They {mended|fixed|glued} the [noun] together. / [Hero] helped to make a new one, and it was even {nicer|better}. / Together they glued the pieces, and the [noun] looked {almost new|good again}.
""",
}

"""More plots of the story generator, written like those in `plots`."""

MORE_PLOTS = {
    "journey": """
One day, [hero] wanted to see {the sea|the big city|the highest mountain|the end of the rainbow|the waterfall}. / [Hero] had never seen {the sea|snow|the big town|the waterfall}, so one [weather] morning [he] set out.
[He] packed some [food] and [a obj] and started to walk. / [He] put {some bread|some [food]} in a bag and said goodbye.
[He] walked past [spot] and over [spot2]. / First [he] came to [spot]. Then the path went {up the hill|into the trees|on and on}. / The sun was warm, and [hero] sang as [he] walked.
But soon [he] did not know the way. [He] was lost. / Then the {fog|night} came, and [hero] could not see the path. / At the crossing [he] {took the wrong path|did not know where to go}.
"Where am I?" asked [hero]. [He] sat down and {cried|sighed}. / [Hero] felt {small|very alone}. "I want to go home," [he] said.
[A fkind] named [friend] {came along|heard [him]}. "Are you lost?" asked [friend]. / "Follow me," said a voice. It was [friend] the [fkind].
"I know the way," said [friend]. "I will show you." / [Friend] {gave [him] some water|sat down next to [him]} and said, "I will take you there."
Together they walked until they {came to the top of a hill|stood at the end of the path}. There it was! / They went by [spot3], and at last [hero] saw it. It was {wonderful|more beautiful than a dream}.
? [Hero] gave [friend] [his] [obj] to say thank you. / They looked for a long time and said nothing.
Then [friend] brought [him] home before {dark|supper}. / In the evening [hero] was home again and told everyone about [his] trip.
""",
    "learn": """
[Hero] wanted to learn to {swim|whistle|ride a bike|skate|read|dance|juggle|climb trees}. / All [his] friends could {swim|whistle|skate|juggle|dance}, but [hero] could not. / "I wish I could {swim|read|whistle|skate|dance}," said [hero].
[He] tried it by [spot], but it did not work. / The first time [he] tried, [he] fell {down|into the grass|over}. / [Hero] tried once. [He] tried twice. It was too hard.
The others {laughed|giggled}, and [hero] went away. / "I will never learn it," said [hero] and {threw down [his] [noun]|sat down}. / [Hero] was {sad|angry} and wanted to give up.
[Friend] the [fkind] sat down next to [him]. "I fell many times too," [fhe] said. / "Do not give up," said [friend] the [fkind]. "I will teach you." / [Friend] the [fkind] said, "Let us try it together, {slowly|step by step}."
Every day they {practiced|tried} near [spot2]. / They {practiced|tried} on Monday, on Tuesday and on Wednesday. / [Friend] showed [him] how to do it, and [hero] tried again and again.
? "A little better," said [friend] each day. / Once [he] {almost|nearly} did it. "Again!" called [friend].
Then, one [weather] {day|morning}, it worked! / And suddenly [hero] could do it! / On the {fifth|seventh|tenth} day, [hero] did it {all alone|without help}.
"Look at me!" {cried|shouted} [hero]. / "You did it!" {cried|shouted} [friend]. / Everyone {clapped|cheered}, and [hero] was so proud.
""",
    "birthday": """
It was [hero]'s birthday, and [he] woke up early. / Tomorrow was [hero]'s birthday. [He] could not wait. / "Today is my birthday!" said [hero] and jumped out of bed.
But nobody said happy birthday. / [He] met [friend] the [fkind], but [friend] said only, "Good morning." / [Hero] went to [spot], but nobody was there.
"Did they all forget? Even [friend] the [fkind]?" asked [hero]. / "[Friend] the [fkind] has forgotten me," thought [hero]. / [He] {walked|sat} alone by [spot2] and thought of [friend] the [fkind].
? [Helper] the [hkind] ran past. "No time!" [hhe] called. / Even [helper] the [hkind] hurried away when [hero] came.
In the evening [hero] walked home {slowly|with a heavy heart}. The house was dark. / When the sun went down, [hero] opened the door of [his] house. / Then [friend] came and said, "Please come with me to [spot3]."
"Surprise!" {shouted|cried} [friend] and all the others. / Suddenly there were lights everywhere. "Happy birthday, [hero]!" called [friend].
There was [food], {music|singing|a big cake}, and a present: [a obj]. / [Friend] gave [him] [a obj] with a [colour2] ribbon. / On the table stood {a cake|some [food]} and [a obj] just for [him].
"We did not forget. We were {baking|getting everything ready} all day," said [friend]. / "How could we forget you?" {laughed|asked} [friend]. / [Hero] {laughed|cried a happy tear}. "This is the best birthday ever," [he] said.
""",
    "quarrel": """
One day, [hero] and [friend] the [fkind] found [a obj] by [spot]. / [Hero] and [friend] the [fkind] wanted to play with the same [obj]. / [Hero] and [friend] the [fkind] were friends. But one day they both wanted the [obj].
"It is mine!" said [hero]. "No, it is mine!" said [friend]. / "I saw it first," said [hero]. "But I picked it up," said [friend].
They {pulled|pulled and pulled} until the [noun] {broke|fell into the water|flew away}. / They were so angry that they did not talk {for a whole day|any more}. / [Friend] {stamped [fhis] foot|turned away} and went home.
[Hero] sat alone. It was {no fun|boring} to play without [friend]. / At home [hero] was sad. The house was so quiet. / [Hero] looked at the [noun]. [He] did not want it any more.
"What is a [noun] without a friend?" asked [helper] the [hkind]. / [Helper] the [hkind] said, "Go and say sorry. It is only one little word." / "I miss [friend]," said [hero].
So [hero] went to [friend]'s {house|door}. / [Hero] {ran|walked} to [spot2], and there was [friend], who was just coming to [him].
"I am sorry," said [hero]. "I am sorry too," said [friend]. / "You can have it," said [hero]. "No, you can have it," said [friend]. Then they both laughed.
They {mended the [noun] and|now} took turns with the [noun]. / From then on, [hero] had it {in the morning|on Mondays}, and [friend] had it {in the evening|on Tuesdays}.
""",
    "baby": """
One [weather] day, [hero] found a baby [hkind] [hiding]. / Near [spot], [hero] heard a tiny cry. It was a baby [hkind]. / On the way to [spot], [hero] saw a very small [hkind].
"I lost my mother," {cried|said} the baby [hkind]. / It was cold and all alone. / "Where is your mother?" asked [hero]. The baby only {cried|looked at [him]}.
[Hero] {gave it some [food]|put it in [his] {basket|hat|bag}}. "Do not cry," [he] said. / [Hero] wrapped it in [his] {scarf|coat|blanket}. "We will find her," [he] said.
[He] asked [friend] the [fkind], "Do you know its mother?" / Then [he] met [friend] the [fkind]. "Whose baby is this?" asked [hero].
"I saw a big [hkind] near [spot2]," said [friend]. / "Let us look by [spot2]," said [friend]. "I will come with you."
They walked and {called|looked} and walked. / They {went|hurried} past [spot3] and called, "Hello! Hello!"
? It began to rain, but they did not stop. / The baby [hkind] fell asleep in [hero]'s arms.
There was the mother! She ran to her baby. / Then they heard someone calling. It was the mother. / At last the mother [hkind] came out of the trees.
"My baby!" she said. "Thank you, [hero] and [friend]." / The mother was so happy that she {cried|danced}. "How can I thank you?" she asked. / The little one {jumped|ran} to her, and everyone was happy.
""",
    "wish": """
One night, [hero] saw a {falling|shooting} star. "Make a wish," said a {soft|tiny} voice. / Near [spot], [hero] found [a obj]. When [he] touched it, it began to {shine|glow|sing}. / One day, [hero] helped an old woman by [spot]. "You may have one wish," she said.
[Hero] thought {for a long time|and thought}. [He] could wish for {gold|a castle|a big cake|new shoes}. / "I could be {rich|a king|very tall}," thought [hero]. / "One wish!" said [hero]. "What shall I take?"
Then [he] saw [friend] the [fkind], who was {crying|cold and hungry|sick in bed}. / Just then [friend] the [fkind] came by. [FHe] {had no home|had lost [fhis] home|was very sad}.
"What is the matter?" asked [hero]. "{My garden is dry|My house is cold|I have no food for my children|My leg hurts}," said [friend]. / "I have nothing to eat," said [friend]. "Not even a crumb."
So [hero] {closed [his] eyes|looked up} and said, "I wish that [friend] may be happy." / "I know my wish now," said [hero]. "Please help [friend]."
{Whoosh!|Suddenly} there was {a bright light|a sound like bells}, and the wish came true. / The star {blinked|twinkled}, and all at once everything was good again. / In the morning, [friend] had everything [fhe] needed.
"You gave me your wish!" said [friend]. "Why?" / [Friend] hugged [hero]. "Nobody was ever so kind to me," [fhe] said.
"Because you are my friend," said [hero]. / "When you are happy, I am happy too," said [hero].
""",
    "sick": """
One day, [friend] the [fkind] was sick and had to stay in bed. / [Hero] went to play with [friend] the [fkind], but [friend] was sick.
"My {head|throat|nose|tummy} hurts," said [friend]. "I cannot come out." / "I cannot play," said [friend] in a {weak|small} voice.
[Hero] wanted to help. / "I will make you feel better," said [hero]. / "Poor [friend]," said [hero]. "What can I do?"
[He] {ran|went} to [spot] and picked {flowers|berries|mint leaves}. / First [he] made some {soup|tea with honey|warm milk}. / [He] asked [helper] the [hkind], who said, "Give [fhim] soup and a good story."
Then [he] {brought|carried} [his] [obj] and some [food] to [friend]. / [He] put it all in a basket and walked back to [friend].
[Hero] sat by the bed and {read a story|sang a song|told a funny story}. / [Friend] ate a little and {smiled|laughed}. / They played with the [noun] on the blanket.
? That night, [friend] slept {well|deep and long}. / "You are better than medicine," said [friend].
After {two|three|four} days, [friend] was well again. / The next {day|morning}, [friend] jumped out of bed. "I feel good!" [fhe] said.
"Now we can play {outside|by [spot2]} again," said [hero]. / "Thank you for caring for me," said [friend].
""",
}

"""From where on a number is worth a sentence. Each has its reason; none of them decides anything but wording."""

# --- pairing -----------------------------------------------------------------------------------------------------
# Share of wrong candidates that the right one beats: 0.5 by chance. Below it, true pairs are hardly told from others,
# and the structure of the two modalities is compared to say why. Real spaces that work at all lie above 0.9.
UNPAIRED = 0.6
# p-value below which two modalities share structure although true pairs are not close (a permutation test of 200).
STRUCTURE_P = 0.01
# Share of scattered rows with a random partner that no result survives; fewer (from 5 % on they show) are a warning.
SCATTERED = 0.4
# Share of items whose two rows are equal number by number: the same file twice, not two modalities.
ALIKE = 0.5
# Items that can be told apart, as 1 / sum of squared class shares. Below it a recall would be mostly chance.
LEAST_ANSWERS = 10
# Items below which intervals are so wide that little can be said.
FEW_ITEMS = 50

# --- retrieval ---------------------------------------------------------------------------------------------------
# R@1 below this multiple of chance is weak: the pairing shows in the ranks but would not help a user.
WEAK = 10
# R@1 that is weak only where chance itself is small; above it nobody would call a space weak.
GOOD_RECALL = 0.3
# Difference of R@1 between the two directions, in absolute terms and as a ratio, that a user would notice.
UNEVEN, UNEVEN_RATIO = 0.05, 1.5

# --- gap ---------------------------------------------------------------------------------------------------------
# Distance of unit rows' means. CLIP's image and text lie about 0.8 apart (Liang et al., NeurIPS 2022); below 0.1 the
# offset is 1/200 of the squared diameter of the sphere's half and moves no rank that is not a near tie.
GAP_NOTE, GAP_WARNING = 0.1, 0.3
# Part of the squared distance of true pairs that is a constant offset: more than half is modality, not content.
GAP_SHARE = 0.5
# A modality is far when it is this much farther from the others than they are from each other.
FAR_RATIO = 2.0
# Gain in R@1 by centring that makes a gap a problem and not only a fact.
GAP_COST = 0.05

# --- collapse ----------------------------------------------------------------------------------------------------
# Mean cosine of two random rows of one modality; 0 when they cover the sphere. Frozen text encoders often give 0.5 to
# 0.8, a narrow cone in which ranks still work; above 0.9 all rows point within 26 degrees of one direction.
CONE, COLLAPSED = 0.5, 0.9
# Effective rank: below 3 a space is a line or a plane with some noise; below 2 % of what it could have, it uses
# next to none of its width.
FLAT_RANK, FLAT_SHARE = 3.0, 0.02
# Share of columns that never move from which padding or dead units are worth more than a note.
STILL_SHARE = 0.1

# --- rows --------------------------------------------------------------------------------------------------------
# Share of repeated rows that changes what recall means; below it, a handful of copies.
REPEATS = 0.01
# Spread of lengths (standard deviation over mean) up to which they count as equal: float16 rounding gives 0.0005.
EVEN_NORM = 1e-3
# From here on lengths say something that a cosine does not see and a dot product does.
UNEVEN_NORM = 0.05
# Share of first answers that a dot product turns against a cosine, from which on uneven lengths matter.
TURNED = 0.02
# Ratio of the modalities' median lengths from which a dot product would be ruled by the longest.
NORM_RATIO = 2.0
# A row this much longer or shorter than the median is an outlier.
OUTLIER = 10.0
# float16: largest number 65504, smallest normal number 6.1e-5.
HALF_LARGEST, HALF_SMALLEST = 65504.0, 6.1e-5

# --- hubs --------------------------------------------------------------------------------------------------------
# Skewness of the 10-occurrences. Independent Gaussian rows have 1 to 3 at 100 dimensions and 4 to 6 at 1000
# (Radovanović et al., JMLR 2010, table 1 and figure 1); one candidate in everybody's answers gives tens.
HUB_SKEWNESS = 8.0
# Share of candidates that nobody finds among the first 10, beyond which a gallery is half dead.
ANTIHUBS = 0.5
# Share of all queries that have the same candidate among the first 10.
HUB_SHARE = 0.2
# The numbers above are about large galleries: among few, the first 10 are a large part of all.
HUB_ITEMS = 200

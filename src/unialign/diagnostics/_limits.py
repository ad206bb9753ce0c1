"""Thresholds of the findings. They affect wording and severity, never the measured values."""

# --- pairing -----------------------------------------------------------------------------------------------------
# AUC of true against random pairs (0.5 by chance) below which modalities are reported as unpaired. Their structures are
# then compared to find the cause. Usable embedding spaces are above 0.9.
MIN_AUC = 0.6
# AUC of clearly paired modalities. If the interval of a low AUC contains this value, too few items were measured.
CLEAR_AUC = 0.75
# p-value of a permutation test (200 permutations) below which two modalities share structure.
MAX_CKA_P = 0.01
# Minimum CKA at which one modality is reported as a rotated or mirrored copy of the other.
ROTATED_CKA = 0.999
# Fraction of scattered random counterparts that makes all results meaningless; fractions of at least 5 % cause a
# warning.
MANY_RANDOM = 0.4
# Minimum fraction of items with bitwise equal rows at which two modalities are reported as the same data.
DUPLICATE_MODALITY = 0.5
# Number of distinguishable items (1 / sum of squared class fractions) below which a recall is mostly chance.
MIN_DISTINCT_ITEMS = 10
# Number of items below which intervals are too wide for conclusions.
FEW_ITEMS = 50

# Fraction of distinct rows below which duplicate rows are counted once when hubs and spread are measured.
FEW_DISTINCT = 0.5
# Minimum fraction of nearly equal rows at which they are scored as correct answers. Fewer hardly change a recall.
NEAR_ANSWERS = 0.1

# --- retrieval ---------------------------------------------------------------------------------------------------
# R@1 below this multiple of chance is reported as weak: better than chance, but not useful.
WEAK_RECALL_RATIO = 10
# R@1 above which retrieval is never reported as weak, whatever the chance level.
GOOD_RECALL = 0.3
# Smallest difference and smallest ratio between the R@1 of the two directions that matter in practice.
UNEVEN_DIFFERENCE, UNEVEN_RATIO = 0.05, 1.5

# --- gap ---------------------------------------------------------------------------------------------------------
# Distance between the means of unit rows. CLIP's image and text means are about 0.8 apart (Liang et al., NeurIPS 2022);
# an offset below 0.1 changes only ranks of near ties.
GAP_NOTE, GAP_WARNING = 0.1, 0.3
# z-value of the squared distance between the means above which a gap is statistically significant.
GAP_Z = 4.0
# Fraction of the squared distance of true pairs above which a constant offset dominates the content.
GAP_FRACTION = 0.5
# A modality is far from the others if its gap exceeds this multiple of the gaps among the others.
FAR_RATIO = 2.0
# Gain in R@1 from centering above which a gap is reported as harmful.
GAP_COST = 0.05

# --- collapse ----------------------------------------------------------------------------------------------------
# Mean cosine of two random rows of a modality, 0 if the rows cover the sphere. For frozen text encoders, it is often
# 0.5 to 0.8, and retrieval still works. Above 0.9, all rows are within 26 degrees of one direction.
ANISOTROPIC, COLLAPSED = 0.5, 0.9
# Effective rank below which rows are close to a line or a plane, as a number and relative to the largest possible rank.
LOW_RANK, LOW_RANK_FRACTION = 3.0, 0.02
# Fraction of constant columns above which they cause a warning.
CONSTANT_COLUMNS = 0.1

# --- rows --------------------------------------------------------------------------------------------------------
# Fraction of duplicate rows above which they distort recall.
DUPLICATES = 0.01
# Check rows that are shared by at least this number of items. Such a row is reported as matching none of its items if
# the mean cosine of its true pairs exceeds that of random pairs by less than this fraction of the excess of other true
# pairs.
FREQUENT_ROW, STAND_IN = 12, 0.25
# Ratio of the norms' standard deviation to their mean. Up to the first value, norms are reported as equal (float16
# rounding gives 0.0005). Above the second, dot products differ noticeably from cosines.
EQUAL_NORMS, UNEVEN_NORMS = 1e-3, 0.05
# Smallest fraction of queries with different first results by dot product and by cosine at which uneven norms matter.
CHANGED_TOP1 = 0.02
# Ratio of two modalities' median norms above which the modality with the larger norm dominates dot products.
NORM_RATIO = 2.0
# Ratio of a row's norm to the median norm that makes the row an outlier.
OUTLIER = 10.0
# Largest value and smallest normal value of float16.
FLOAT16_MAX, FLOAT16_TINY = 65504.0, 6.1e-5

# --- hubs --------------------------------------------------------------------------------------------------------
# Skewness of the hubness counts for k = 10. For independent Gaussian rows, it is 1 to 3 in 100 dimensions and 4 to 6 in
# 1000 (Radovanović et al., JMLR 2010, table 1 and figure 1). If one candidate is returned for most queries, the
# skewness is above 10.
HUB_SKEWNESS = 8.0
# Fraction of candidates that are never among the first 10 results.
ANTIHUBS = 0.5
# Fraction of the queries whose first 10 results contain the same candidate.
HUB_FRACTION = 0.2
# Minimum number of items for these thresholds. In smaller galleries, 10 results are a large fraction of all items.
HUB_ITEMS = 200

# --- training batch ----------------------------------------------------------------------------------------------
# Number of negatives per query that are more similar than chance explains, and its z-value. In healthy spaces, the
# z-value is at most 2.
CLOSE_NEGATIVES, CLOSE_Z = 1.0, 4.0

# --- index -------------------------------------------------------------------------------------------------------
# Frequency of the query's modality among the first 10 results over its frequency in a gallery of two modalities: 1
# without bias, 2 if all results have the modality of the query. At 1.5, three of four results have this modality. The
# lower bound of the interval must be at least BIAS_LEAST.
BIAS_NOTE, BIAS_WARNING, BIAS_LEAST = 1.5, 1.8, 1.25
# Largest p-value of a significant distribution gap. With 400 random exchanges, the smallest possible p-value is 0.0025.
MAX_DISTRIBUTION_P = 0.005
# Fraction of the squared length of the rows that one common component may have.
SHARED = 0.5
# Ratio of the standard deviations of random cosines, and the least lower bound of its interval.
SHARPNESS_RATIO, SHARPNESS_LEAST = 2.0, 1.5
# z-value of the difference of the R@1 of two directions above which it is reported; p = 0.001.
ASYMMETRY_Z = 3.3
# Loss of R@1 up to which truncation counts as free (upper bound), and least gain of a projection before truncation.
FREE_LOSS, ROTATION_GAIN = 0.02, 0.05

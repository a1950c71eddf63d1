"""Built-in conditions on poses, one file per kind, and what makes triggers of them.

A pose takes this way through a `ConditionTrigger`: its keypoints pass gates and a filter (`gates`,
`filters`); the condition says whether it is met (`region` ... `logic`), most by comparing a
quantity with thresholds (`thresholds`); what is not known follows a policy, what is met must hold
for the dwell time, and what then begins must be within the limits (`timing`). In a
`ProportionalTrigger` a level follows the quantity instead. Each step is a small
class of its own, a pure function of the poses seen so far.
"""

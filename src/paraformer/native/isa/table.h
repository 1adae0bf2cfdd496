/* What a family of processors offers, from functions of these names in the file that ends with this one; ISA, NEEDS and FAST
 * are its own. */
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

void JOIN(fbank, ISA)(const Fbank *f, const float *samples, int count, int shift, float *frames, void *space);

const Kernels JOIN(kernels, ISA) = {
    .name = TEXT(ISA),
    .needs = NEEDS,
    .fast = FAST,
    .acts_fill = acts_fill,
    .layer_norm = layer_norm,
    .multiply = multiply,
    .means = means,
    .ranges = ranges,
    .pack_columns = pack_columns,
    .pack_rows = pack_rows,
    .softmax = softmax,
    .filter = filter,
    .fbank = JOIN(fbank, ISA),
};

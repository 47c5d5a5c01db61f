"""Constructors that take their arguments as the interpreter has them (PEP 590).

Without one, each call of a type packs its arguments into a tuple and a dict for `__new__` and
`__init__`, which costs as much as making one of our objects. A type sets a constructor of its
own for calls that are right; what it does not understand goes the ordinary way.
"""
from cpython.object cimport PyObject

cdef extern from *:
    """
    #ifndef PTL_CONSTRUCT_H
    #define PTL_CONSTRUCT_H
    /* Only for final types: a subclass would be made as its base. */
    static CYTHON_UNUSED void ptl_set_constructor(
            PyObject *type, PyObject *(*make)(PyObject *, PyObject **, size_t, PyObject *)) {
        ((PyTypeObject *)type)->tp_vectorcall = (vectorcallfunc)make;
    }

    /* The ordinary way. */
    static CYTHON_UNUSED PyObject *ptl_construct(
            PyObject *type, PyObject **args, size_t count, PyObject *names) {
        PyObject *positional = NULL, *keywords = NULL, *made = NULL;
        Py_ssize_t i, n = PyVectorcall_NARGS(count);
        positional = PyTuple_New(n);
        if (positional == NULL) goto end;
        for (i = 0; i < n; i++) {
            Py_INCREF(args[i]);
            PyTuple_SET_ITEM(positional, i, args[i]);
        }
        if (names != NULL) {
            keywords = PyDict_New();
            if (keywords == NULL) goto end;
            for (i = 0; i < PyTuple_GET_SIZE(names); i++)
                if (PyDict_SetItem(keywords, PyTuple_GET_ITEM(names, i), args[n + i]) < 0) goto end;
        }
        made = PyType_Type.tp_call(type, positional, keywords);
    end:
        Py_XDECREF(positional);
        Py_XDECREF(keywords);
        return made;
    }

    /* Put arguments in the order of `parameters`, interned names; `values` are borrowed, NULL for
       what is not given. 0 for an argument too many or unknown. */
    static CYTHON_UNUSED int ptl_arrange(
            PyObject **args, size_t count, PyObject *names, PyObject *parameters, PyObject **values) {
        Py_ssize_t i, place, n = PyVectorcall_NARGS(count), size = PyTuple_GET_SIZE(parameters);
        if (n > size) return 0;
        for (i = 0; i < size; i++) values[i] = i < n ? args[i] : NULL;
        if (names == NULL) return 1;
        for (i = 0; i < PyTuple_GET_SIZE(names); i++) {
            for (place = n; place < size; place++)
                if (PyTuple_GET_ITEM(parameters, place) == PyTuple_GET_ITEM(names, i)) break;
            if (place == size) return 0;
            values[place] = args[n + i];
        }
        return 1;
    }
    #endif
    """
    ctypedef object (*ptl_constructor)(PyObject *, PyObject **, size_t, PyObject *)

    void ptl_set_constructor(object type, ptl_constructor make)
    object ptl_construct(PyObject *type, PyObject **args, size_t count, PyObject *names)
    bint ptl_arrange(PyObject **args, size_t count, PyObject *names, tuple parameters, PyObject **values)
    Py_ssize_t PyVectorcall_NARGS(size_t count)
